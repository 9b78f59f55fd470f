"""What is proven after a training: every step ran, every sample was counted, losses went on, the right weights changed.

Only then are checkpoint and metrics.json published. What can be known before is checked by scripts/train/watch.py, too: a
training that could never be published ends at the step, or the checkpoint, that shows it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.common.logger import log
from scripts.donors.model_files import model_sha256
from scripts.train.checkpoints import publish_checkpoint, read_trainer_state
from scripts.train.complete_checkpoints import check_unchanged
from scripts.train.local_paths import without_local_paths
from scripts.train.losses import LossPoint, loss_goes_on, loss_limit
from scripts.train.metrics import CHECKPOINT_NAME, METRICS_NAME, Metrics, Resume, write_metrics
from scripts.train.run import Run
from scripts.train.settings import SETTINGS_NAME, ExportedSettings
from scripts.train.starts import read_attempts
from scripts.train.step_records import StepRecord, read_all_steps, read_steps, sample_problem, step_times
from scripts.train.tensor_changes import GROUPS, TensorChange, check_changes, compare_checkpoints, name_in_memory
from scripts.train.watch_files import Begin, read_begin

RankSteps = Mapping[int, StepRecord]


def read_steps_of_ranks(run: Run, begin: Begin) -> list[RankSteps]:
    """Each rank's records. Raises UserError when a rank has none for some step."""
    ranks: list[RankSteps] = [read_steps(run.watch.steps(rank), begin.max_steps) for rank in range(begin.num_processes)]
    for rank, records in enumerate(ranks):
        if missing := set(range(1, begin.max_steps + 1)) - records.keys():
            raise UserError(
                f"{run.watch.steps(rank)}: no record of step {min(missing)} ({len(missing)} such); expected one for each of "
                f"{begin.max_steps} steps, or the samples cannot be counted; was the file changed?"
            )
    return ranks


def check_samples(stage: str, ranks: Sequence[RankSteps], expected: Sequence[int]) -> int:
    """The number of samples that went through the model. Raises UserError when a step saw another number than dealt."""
    seen = 0
    for step, num_expected in enumerate(expected, start=1):
        num_seen = sum(records[step].num_samples for records in ranks)
        if problem := sample_problem(step, num_seen, num_expected):
            raise UserError(f"{stage}: {problem}")
        seen += num_seen
    return seen


def check_resumes(run: Run, losses: Sequence[LossPoint]) -> list[Resume]:
    """The losses around each resume. Raises UserError when one does not go on."""
    resumes = []
    # A start that saved nothing is followed by another one at the same step.
    for step in sorted({attempt.resume_step for attempt in read_attempts(run.run_dir)}):
        before = [point.loss for point in losses if point.step <= step]
        after = [point.loss for point in losses if point.step > step]
        if step == 0 or not before or not after:
            continue
        if not loss_goes_on(before, after[0]):
            raise UserError(
                f"{run.stage}: the loss after the resume at step {step} is {after[0]:.4f}, "
                f"at most {loss_limit(before):.4f} expected from those before; see {run.log}"
            )
        resumes.append(Resume(step, before[-1], after[0]))
    return resumes


def wall_time_s(run: Run) -> float:
    """Seconds that the trainer ran over all starts: each counts to its last step, so a killed one counts too."""
    starts = [attempt.start_time_s for attempt in read_attempts(run.run_dir)]
    ends = [record.end_time_s for record in read_all_steps(run.watch.steps(0))]
    total = 0.0
    for start, following in zip(starts, [*starts[1:], float("inf")], strict=True):
        within = [end for end in ends if start <= end < following]
        total += max(within) - start if within else 0.0
    return total


def count_by_group(changes: Sequence[TensorChange]) -> dict[str, int]:
    return {group: sum(change.group == group for change in changes) for group in GROUPS}


def prove_changes(run: Run, checkpoint: Path, begin: Begin) -> tuple[list[TensorChange], list[str]]:
    """Every tensor, and the names of those that trained but kept their bits. Raises UserError when wrong ones changed."""
    log(f"{run.stage}: comparing every tensor with the input's")
    trainable_in_memory = set(begin.trainable)
    changes = list(compare_checkpoints(run.model_dir, checkpoint))
    trainable = {change.name: name_in_memory(change.name) in trainable_in_memory for change in changes}
    unchanged = check_changes(run.stage, changes, trainable)
    num_changed, num_tensors = count_by_group([change for change in changes if change.changed]), count_by_group(changes)
    for group in GROUPS:
        log(f"{run.stage}: {group}: {num_changed[group]} of {num_tensors[group]} tensors changed")
    if unchanged:
        log(f"{run.stage}: {len(unchanged)} trained tensors kept their bits (updates below 16-bit rounding)")
    return changes, unchanged


def finish(run: Run, checkpoint: Path, argv: list[str], output_dir: Path, versions: Mapping[str, str]) -> None:
    """Proves the training, then publishes checkpoint and metrics."""
    check_unchanged(checkpoint, is_last_start=True)
    begin, state = read_begin(run.watch), read_trainer_state(checkpoint)
    if state.max_steps != begin.max_steps:
        raise UserError(f"{checkpoint}: max_steps {state.max_steps} found, {begin.max_steps} expected")
    ranks = read_steps_of_ranks(run, begin)
    num_samples_seen = check_samples(run.stage, ranks, begin.samples_per_step)
    resumes = check_resumes(run, state.losses)
    changes, unchanged = prove_changes(run, checkpoint, begin)

    settings = without_local_paths({"stage": run.stage, "seed": run.seed, **vars(run.settings)})
    metrics_path = output_dir / METRICS_NAME
    metrics_path.unlink(missing_ok=True)  # an older one must not be taken for this checkpoint's
    published = publish_checkpoint(
        checkpoint, run.model_dir, output_dir / CHECKPOINT_NAME, ExportedSettings(**settings)
    )
    num_tokens_seen = sum(record.num_tokens for records in ranks for record in records.values())
    first_rank = list(ranks[0].values())
    metrics = Metrics(
        stage=run.stage,
        num_steps=state.global_step,
        num_processes=begin.num_processes,
        num_rows=run.num_rows,
        num_rows_left_out_each_epoch=run.num_rows % begin.num_processes,
        num_samples_seen=num_samples_seen,
        num_samples_expected=sum(begin.samples_per_step),
        num_tokens_seen=num_tokens_seen,
        num_parameters=begin.num_parameters,
        num_trainable_parameters=begin.num_trainable_parameters,
        tensors_changed=count_by_group([change for change in changes if change.changed]),
        tensors_total=count_by_group(changes),
        tensors_trained_but_unchanged=unchanged,
        first_loss=state.losses[0].loss if state.losses else None,
        last_loss=state.losses[-1].loss if state.losses else None,
        losses=state.losses,
        step_time_s=step_times(first_rank),
        num_tokens_per_s=round(num_tokens_seen / sum(record.step_time_s for record in first_rank), 3),
        peak_gpu_memory_gib=peak_gpu_memory_gib(ranks),
        wall_time_s=round(wall_time_s(run), 3),
        resumes=resumes,
        versions=dict(versions),
        command=argv,
        signature=run.signature,
        checkpoint_sha256=model_sha256(output_dir / CHECKPOINT_NAME),
        settings_sha256=sha256_of_file(output_dir / CHECKPOINT_NAME / SETTINGS_NAME),
    )
    write_metrics(metrics_path, metrics)
    log(f"{run.stage}: {num_samples_seen} samples in {state.global_step} steps; {len(published)} files exported")


def peak_gpu_memory_gib(ranks: Sequence[RankSteps]) -> float | None:
    """The largest of all ranks; None on CPUs."""
    peaks = [record.peak_gpu_memory_gib for records in ranks for record in records.values()]
    return max((peak for peak in peaks if peak is not None), default=None)
