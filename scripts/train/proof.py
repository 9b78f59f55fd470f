"""What is proven after a training: every step ran, every sample was counted, losses went on, the right weights changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json_atomically
from scripts.common.local_paths import without_local_paths
from scripts.common.logger import log
from scripts.common.model_files import model_sha256
from scripts.train.checkpoints import publish_checkpoint, trainer_state
from scripts.train.run import Run
from scripts.train.step_records import (
    StepRecord,
    loss_goes_on,
    loss_limit,
    losses_of,
    read_lines,
    read_steps,
    step_times,
    steps_path,
)
from scripts.train.tensor_changes import GROUPS, TensorChange, check_changes, compare_checkpoints, name_in_memory


def all_step_records(run: Run, begin: Mapping[str, Any]) -> list[dict[int, StepRecord]]:
    """Each rank's records. Raises UserError when a rank has none for some step."""
    ranks = [read_steps(steps_path(run.watch_dir, rank), begin["max_steps"]) for rank in range(begin["num_processes"])]
    for rank, records in enumerate(ranks):
        if missing := set(range(1, begin["max_steps"] + 1)) - records.keys():
            raise UserError(
                f"{steps_path(run.watch_dir, rank)}: no record of step {min(missing)} ({len(missing)} such); "
                "the samples cannot be counted; was the file changed?"
            )
    return ranks


def check_samples(stage: str, ranks: Sequence[Mapping[int, StepRecord]], expected: Sequence[int]) -> int:
    """The number of samples that went through the model. Raises UserError when a step saw another number than dealt."""
    seen = 0
    for step, num_expected in enumerate(expected, start=1):
        num_seen = sum(records[step].num_samples for records in ranks)
        if num_seen != num_expected:
            raise UserError(
                f"{stage}: step {step} saw {num_seen} samples, {num_expected} expected; "
                "rows were dropped or repeated on their way into the model"
            )
        seen += num_seen
    return seen


def check_resumes(run: Run, losses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The losses around each resume. Raises UserError when one does not go on."""
    resumes = []
    # A start that came to nothing is followed by another one at the same step.
    for step in sorted({attempt["resume_step"] for attempt in read_lines(run.attempts_path)}):
        before = [entry["loss"] for entry in losses if entry["step"] <= step]
        after = [entry["loss"] for entry in losses if entry["step"] > step]
        if step == 0 or not before or not after:
            continue
        if not loss_goes_on(before, after[0]):
            raise UserError(
                f"{run.stage}: the loss after the resume at step {step} is {after[0]:.4f}, "
                f"at most {loss_limit(before):.4f} expected from those before; see {run.log}"
            )
        resumes.append({"step": step, "loss_before": before[-1], "loss_after": after[0]})
    return resumes


def wall_time_s(run: Run) -> float:
    """Seconds that the trainer ran over all starts: to the last step of each, so a killed one counts too."""
    starts = [attempt["start_time_s"] for attempt in read_lines(run.attempts_path)]
    ends = [line["end_time_s"] for line in read_lines(steps_path(run.watch_dir, 0))]
    total = 0.0
    for start, following in zip(starts, [*starts[1:], float("inf")], strict=True):
        within = [end for end in ends if start <= end < following]
        total += max(within) - start if within else 0.0
    return total


def by_group(changes: Sequence[TensorChange], *, only_changed: bool) -> dict[str, int]:
    return {g: sum(c.group == g and (c.changed or not only_changed) for c in changes) for g in GROUPS}


def finish(run: Run, checkpoint: Path, argv: list[str], output_dir: Path, versions: Mapping[str, str]) -> None:
    """Proves the training, then publishes checkpoint and metrics."""
    begin = read_json(run.watch_dir / "begin.json")
    state = trainer_state(checkpoint)
    if state["max_steps"] != begin["max_steps"]:
        raise UserError(f"{checkpoint}: max_steps {state['max_steps']} found, {begin['max_steps']} expected")
    ranks = all_step_records(run, begin)
    num_samples = check_samples(run.stage, ranks, begin["samples_per_step"])
    losses = losses_of(state["log_history"])
    resumes = check_resumes(run, losses)

    log(f"{run.stage}: comparing every tensor with the input's")
    trainable_in_memory = set(begin["trainable"])
    changes = list(compare_checkpoints(run.model_dir, checkpoint))
    trainable = {change.name: name_in_memory(change.name) in trainable_in_memory for change in changes}
    unchanged = check_changes(run.stage, changes, trainable)
    for group in GROUPS:
        num_changed = sum(change.changed for change in changes if change.group == group)
        log(f"{run.stage}: {group}: {num_changed} of {by_group(changes, only_changed=False)[group]} tensors changed")
    if unchanged:
        log(f"{run.stage}: {len(unchanged)} trained tensors kept their bits (updates below 16-bit rounding)")

    settings = without_local_paths({"stage": run.stage, "seed": run.seed, **run.settings})
    published = publish_checkpoint(checkpoint, run.model_dir, output_dir / "checkpoint", settings)
    first_rank = list(ranks[0].values())
    num_tokens = sum(record.num_tokens for records in ranks for record in records.values())
    num_processes = begin["num_processes"]
    metrics = {
        "stage": run.stage,
        "num_steps": state["global_step"],
        "num_processes": num_processes,
        "num_rows": run.num_rows,
        "num_rows_left_out_each_epoch": run.num_rows % num_processes,
        "num_samples_seen": num_samples,
        "num_samples_expected": sum(begin["samples_per_step"]),
        "num_tokens_seen": num_tokens,
        "num_parameters": begin["num_parameters"],
        "num_trainable_parameters": begin["num_trainable_parameters"],
        "tensors_changed": by_group(changes, only_changed=True),
        "tensors_total": by_group(changes, only_changed=False),
        "tensors_trained_but_unchanged": unchanged,
        "first_loss": losses[0]["loss"] if losses else None,
        "last_loss": losses[-1]["loss"] if losses else None,
        "losses": losses,
        "step_time_s": step_times(first_rank),
        "num_tokens_per_s": round(num_tokens / sum(record.step_time_s for record in first_rank), 3),
        "peak_gpu_memory_gib": max(
            (r.peak_gpu_memory_gib for records in ranks for r in records.values() if r.peak_gpu_memory_gib is not None),
            default=None,
        ),
        "wall_time_s": round(wall_time_s(run), 3),
        "resumes": resumes,
        "versions": dict(versions),
        "command": argv,
        "signature": run.run_dir.name,
        "checkpoint_sha256": model_sha256(output_dir / "checkpoint"),
    }
    write_json_atomically(output_dir / "metrics.json", metrics)
    log(f"{run.stage}: {num_samples} samples in {state['global_step']} steps; {len(published)} files exported")
