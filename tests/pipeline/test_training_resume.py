"""Training through real ms-swift: interrupted at any time, the same command ends with the same bits."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.training_run import NUM_ROWS, NUM_STEPS, TrainingRun, graft, sender, stage_settings, write_dataset

pytestmark = pytest.mark.slow

MakeRun = Callable[..., TrainingRun]
# Code, tokenizer, random states, and what stands before the tensors in their files.
SMALL_FILES_BYTES = 250_000


@pytest.fixture(scope="module")
def model_dir(root: Path, tiny_vl_dir: Path, tiny_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graft in several shards, so that the trainer's names and files are not the input's."""
    return graft(root, tiny_vl_dir, tiny_llm_dir, "qwen3", tmp_path_factory.mktemp("graft"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def make_run(
    root: Path, train_python: Path, model_dir: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> MakeRun:
    def make(name: str, **changes: object) -> TrainingRun:
        options = {"model_dir": model_dir, "dataset": dataset, **changes}
        return TrainingRun(root=root, train_python=train_python, directory=tmp_path_factory.mktemp(name), **options)

    return make


@pytest.fixture(scope="module")
def undisturbed(make_run: MakeRun) -> TrainingRun:
    """One process, never interrupted."""
    run = make_run("undisturbed")
    run.run()
    return run


def test_a_stage_trains_everything_that_is_free_and_counts_every_sample(undisturbed: TrainingRun) -> None:
    metrics = undisturbed.metrics
    assert metrics["num_steps"] == NUM_STEPS
    assert metrics["num_samples_seen"] == metrics["num_samples_expected"] == 2 * NUM_ROWS
    assert metrics["tensors_changed"] == metrics["tensors_total"]
    assert metrics["num_trainable_parameters"] == metrics["num_parameters"]
    assert [entry["step"] for entry in metrics["losses"]] == list(range(1, NUM_STEPS + 1))
    assert metrics["last_loss"] < metrics["first_loss"]
    assert metrics["resumes"] == []
    assert metrics["peak_gpu_memory_gib"] is None  # no GPU here
    index = json.loads((undisturbed.checkpoint_dir / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(undisturbed.weights())
    settings = json.loads((undisturbed.checkpoint_dir / "settings.json").read_text())
    assert settings["flags"] == undisturbed.settings["flags"]
    assert "[TRAINABLE] aligner" in undisturbed.log_text


def test_a_finished_training_is_only_exported_again(undisturbed: TrainingRun) -> None:
    before, log = undisturbed.weights(), undisturbed.log_text
    metrics = undisturbed.metrics
    shutil.rmtree(undisturbed.checkpoint_dir.parent)  # as after a kill in the midst of an export
    assert f"already trained to step {NUM_STEPS}" in undisturbed.run()
    assert undisturbed.weights() == before
    assert undisturbed.metrics == metrics
    assert undisturbed.log_text == log  # ms-swift was not started


def test_interrupted_four_times_it_ends_with_the_same_bits(make_run: MakeRun, undisturbed: TrainingRun) -> None:
    run = make_run("interrupted")

    said = run.interrupted(run.after_steps(3), sender(signal.SIGTERM))
    assert "stopped by SIGTERM; saved at step" in said
    first_stop = run.steps_done()
    assert 3 <= first_stop < NUM_STEPS

    said = run.interrupted(run.after_steps(3), sender(signal.SIGINT))
    assert f"going on from step {first_stop}" in said
    assert "stopped by SIGINT; saved at step" in said
    assert first_stop < run.steps_done() < NUM_STEPS

    # A power cut in the midst of writing a checkpoint.
    def is_writing() -> bool:
        found = run.work_dir.glob("*/trainer/checkpoint-*")
        return any(path.exists() and not (path / "complete.json").exists() for path in found)

    run.interrupted(is_writing, run.kill_everything)
    assert not run.checkpoint_dir.exists()

    # The launcher alone is killed: the trainer saves and ends by itself, and the next start waits for it.
    said = run.interrupted(run.after_steps(2), sender(signal.SIGKILL))
    assert "which was cut off while it was written" in said
    last = run.run()
    assert "going on from step" in last
    assert not run.rank_pids()

    assert run.weights() == undisturbed.weights()
    metrics = run.metrics
    assert metrics["num_samples_seen"] == 2 * NUM_ROWS
    starts = [json.loads(line)["resume_step"] for line in (run.run_dir / "attempts.jsonl").read_text().splitlines()]
    assert len(starts) == 5
    # The start that the power cut ended saved no new checkpoint, so the one after it went on from the same step.
    assert [resume["step"] for resume in metrics["resumes"]] == sorted(set(starts) - {0})
    assert metrics["checkpoint_sha256"] == undisturbed.metrics["checkpoint_sha256"]


def signal_everybody(run: TrainingRun) -> Callable[[int], None]:
    """What Slurm does before a time limit: SIGTERM to every process of the job, data loader workers too."""

    def send(launcher_pid: int) -> None:
        for pid in [launcher_pid, *descendants(launcher_pid)]:
            os.kill(pid, signal.SIGTERM)

    return send


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    parents = dict(tuple(map(int, line.split())) for line in listed.splitlines())
    found = [pid]
    for known in found:  # grows while it is gone through
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


@pytest.mark.full
@pytest.mark.parametrize("deepspeed", [None, "zero2", "zero3"])
def test_two_processes_see_each_sample_once_and_resume_to_the_same_bits(
    make_run: MakeRun, undisturbed: TrainingRun, deepspeed: str | None
) -> None:
    flags = {"per_device_train_batch_size": 1, "dataloader_num_workers": 0 if deepspeed else 1}
    settings = stage_settings(num_processes_per_node=2, deepspeed=deepspeed, flags=flags)
    whole, parts = make_run(f"whole_{deepspeed}", settings=settings), make_run(f"parts_{deepspeed}", settings=settings)
    whole.run()
    assert whole.metrics["num_processes"] == 2
    assert whole.metrics["num_samples_seen"] == 2 * NUM_ROWS
    # The same batches as one process had, so the same training but for rounding.
    for ours, theirs in zip(whole.metrics["losses"][:4], undisturbed.metrics["losses"][:4], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)

    assert not list(whole.run_dir.glob("cache/torch_extensions/*")), (
        "DeepSpeed compiled something, which takes a minute"
    )
    said = parts.interrupted(parts.after_steps(5), signal_everybody(parts))
    assert "stopped by SIGTERM; saved at step" in said
    stopped_at = parts.steps_done()
    assert 5 <= stopped_at < NUM_STEPS
    parts.run()
    assert [resume["step"] for resume in parts.metrics["resumes"]] == [stopped_at]
    assert parts.weights() == whole.weights()
    for run in (undisturbed, whole, parts):
        check_checkpoint_bytes(run)


@pytest.mark.full
def test_two_processes_train_on_every_row_where_rows_are_grouped_by_length(make_run: MakeRun, tmp_path: Path) -> None:
    """ms-swift then deals the odd row, too; the last batches of the two are of different sizes."""
    flags = {"group_by_length": True, "num_train_epochs": 2, "save_steps": 3}
    run = make_run("grouped", settings=stage_settings(num_processes_per_node=2, flags=flags))
    run.dataset = write_dataset(tmp_path / "odd", NUM_ROWS + 1)
    run.run()
    assert run.metrics["num_samples_seen"] == run.metrics["num_samples_expected"] == 2 * (NUM_ROWS + 1)


def check_checkpoint_bytes(run: TrainingRun) -> None:
    """What was foreseen for a checkpoint's tensors is all of it but the small files, which are as many for an 8B."""
    foreseen = json.loads((run.run_dir / "watch/begin.json").read_text())["checkpoint_bytes"]
    files = json.loads((run.run_dir / f"trainer/checkpoint-{NUM_STEPS}/complete.json").read_text())["files"]
    assert foreseen <= sum(file["num_bytes"] for file in files.values()) <= foreseen + SMALL_FILES_BYTES


@pytest.mark.full
@pytest.mark.parametrize("architecture", ["qwen3", "qwen2_5_vl"])
def test_stage_1_trains_the_aligner_and_nothing_else(
    root: Path,
    make_run: MakeRun,
    tiny_vl_dir: Path,
    tiny_llm_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    architecture: str,
) -> None:
    model_dir = graft(root, tiny_vl_dir, tiny_llm_dir, architecture, tmp_path_factory.mktemp(architecture))
    flags = {"freeze_vit": True, "freeze_llm": True, "freeze_aligner": False, "max_steps": 3, "num_train_epochs": None}
    run = make_run("stage1", stage="stage1", model_dir=model_dir, settings=stage_settings(flags=flags))
    said = run.run()
    metrics = run.metrics
    assert metrics["tensors_changed"] == {"vision_tower": 0, "aligner": 5, "language_model": 0}
    assert metrics["num_trainable_parameters"]["aligner"] == metrics["num_parameters"]["aligner"]
    assert metrics["num_trainable_parameters"]["vision_tower"] == 0
    assert metrics["num_samples_seen"] == 3 * 4
    assert "[FROZEN]    language_model" in said
