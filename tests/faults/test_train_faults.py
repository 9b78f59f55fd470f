"""Training refuses what cannot end well, in one line, before or while ms-swift runs, and leaves nothing declared behind."""

import fcntl
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import LIMIT_S
from helpers.report_inputs import DATASET_CHECK, make_metrics
from helpers.small_checkpoint import write_small_checkpoint
from helpers.small_file_system import remount, small_file_system
from helpers.training_run import TrainingRun, graft, stage_settings, write_dataset
from scripts.common.reading import write_sealed
from scripts.data.dataset_check import write_dataset_check

Prepare = Callable[[TrainingRun], None]


@pytest.fixture
def run(root: Path, train_python: Path, tmp_path: Path) -> TrainingRun:
    """A model that is enough for everything that is checked before ms-swift starts."""
    model_dir = write_small_checkpoint(tmp_path / "model")
    (model_dir / "config.json").write_text('{"model_type": "qwen2_5_vl_qwen3", "dtype": "float32"}')
    return TrainingRun(root, train_python, tmp_path / "run", model_dir, write_dataset(tmp_path / "data", num_rows=2))


def refused(run: TrainingRun) -> str:
    """The one line that a failing start says last; nothing that the workflow asks for may be there."""
    said = run.run(status=1)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in said
    assert not (run.directory / "out").exists()
    assert not (run.directory / "train.log").exists()
    return error


def with_flags(run: TrainingRun, **flags: Any) -> None:
    run.settings = stage_settings(flags=flags)


def break_shard(run: TrainingRun) -> None:
    shard = run.model_dir / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3])


def break_row(run: TrainingRun) -> None:
    with open(run.dataset, "a") as file:
        file.write('{"messages": [\n')


def test_rows_that_were_edited_after_their_check_are_not_trained_on(run: TrainingRun) -> None:
    run.dataset_check = run.dataset.with_suffix(".check.json")
    write_dataset_check(run.dataset_check, DATASET_CHECK)
    assert "data.jsonl: sha256 " in (error := refused(run))
    assert "the rows were edited after their check" in error


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda run: run.dataset.unlink(), "data.jsonl: not found; expected the training set of stage2"),
        (lambda run: run.dataset.write_text("\n\n"), "data.jsonl: empty; expected at least one row"),
        (break_row, "data.jsonl: row 3 is no JSON object"),
        (break_shard, "model.safetensors: "),
        (lambda run: (run.model_dir / "config.json").unlink(), "config.json: not found"),
        (lambda run: (run.model_dir / "config.json").write_text('{"model_type": "qwen3"}'), "model_type qwen3 found"),
        (lambda run: with_flags(run, output_dir="x"), "stage2.flags.output_dir: set by vlgraft itself"),
        (lambda run: with_flags(run, tuner_type="lora"), "stage2.flags.tuner_type: lora found, full expected"),
        (lambda run: with_flags(run, torch_dtype="bfloat16"), "stage2.flags.torch_dtype: bfloat16 found, but "),
        (lambda run: run.settings.update(num_nodes=2), "stage2.num_nodes: 2 found, but this is no Slurm job"),
    ],
)  # fmt: skip
def test_what_cannot_end_well_is_refused_before_ms_swift_starts(
    run: TrainingRun, monkeypatch: pytest.MonkeyPatch, prepare: Prepare, expected: str
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    prepare(run)
    assert expected in refused(run)


def test_a_model_that_is_not_the_declared_one_is_not_trained_on(run: TrainingRun, tmp_path: Path) -> None:
    run.model_dir = run.model_dir.rename(tmp_path / "checkpoint")
    metrics_path = tmp_path / "metrics.json"
    write_sealed(metrics_path, make_metrics("stage1", num_steps=4, seed=0) | {"checkpoint_sha256": "0" * 64})
    assert f"found over its files, {'0' * 64} declared by {metrics_path}" in refused(run)


def test_a_start_that_waits_for_another_can_be_stopped(run: TrainingRun) -> None:
    refusing = TrainingRun(**{**run.__dict__, "settings": run.settings | {"num_nodes": 2}})
    refused(refusing)  # leaves the work directory whose name only the program knows
    lock_path = refusing.run_dir / "launcher.lock"
    with open(lock_path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock_path.write_text(json.dumps({"pid": 4242, "host": "node7"}))
        process = refusing.start()
        assert process.stderr is not None
        while "in use by process 4242 on node7; waiting" not in (line := process.stderr.readline()):
            assert line, "it did not say what it waits for"
        os.kill(process.pid, signal.SIGTERM)
        assert "stopped while waiting for process 4242 on node7" in process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == 1


@pytest.fixture(scope="module")
def trainable_dir(root: Path, tiny_vl_dir: Path, tiny_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graft(root, tiny_vl_dir, tiny_llm_dir, "qwen3", tmp_path_factory.mktemp("graft"))


@pytest.mark.slow
@pytest.mark.full
def test_an_unreadable_picture_ends_the_run_instead_of_being_replaced(run: TrainingRun, trainable_dir: Path) -> None:
    run.model_dir = trainable_dir
    with_flags(run, dataloader_num_workers=1, dataset_shuffle=False, train_dataloader_shuffle=False)
    (run.dataset.parent / "1.png").write_bytes(b"no picture")
    said = run.run(status=1)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert f"the row with images ['{run.dataset.parent / '1.png'}']: UnidentifiedImageError" in error
    assert f"all output: {run.directory / 'train.log'}" in error
    assert "Traceback" not in said
    assert not (run.directory / "out").exists()


@pytest.mark.slow
@pytest.mark.full
def test_a_row_longer_than_max_length_ends_the_run_and_is_named(run: TrainingRun, trainable_dir: Path) -> None:
    run.model_dir = trainable_dir
    with_flags(run, max_length=8)
    said = run.run(status=1)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "the row with images ['" in error
    assert "set max_length or truncation_strategy" in error
    assert not (run.directory / "out").exists()


@pytest.mark.slow
@pytest.mark.full
def test_a_trainer_that_is_killed_is_reported_and_its_checkpoints_are_kept(
    run: TrainingRun, trainable_dir: Path
) -> None:
    run.model_dir, run.dataset = trainable_dir, write_dataset(run.dataset.parent / "more", num_rows=40)

    def kill_trainer(launcher_pid: int) -> None:
        os.kill(run.rank_pids()[0], signal.SIGKILL)

    said = run.interrupted(run.after_steps(8), kill_trainer)
    assert "stage2: ms-swift ended with signal 9" in said
    assert (run.run_dir / "trainer/checkpoint-6/complete.json").exists()
    assert not (run.directory / "out").exists()


@pytest.mark.slow
@pytest.mark.full
def test_a_disk_that_fills_up_loses_one_checkpoint_and_a_disk_that_is_too_small_is_refused_before_a_step(
    run: TrainingRun, trainable_dir: Path
) -> None:
    run.model_dir, run.dataset = trainable_dir, write_dataset(run.directory / "pictures")
    run.settings = stage_settings(flags={"save_total_limit": 4, "save_steps": 6})
    # Four checkpoints fit by their tensors, 5.54 MB; with the small files around them the last one does not.
    with small_file_system(run.work_dir, "5800k"):
        said = run.run(status=1)
        (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "checkpoint-24: there was no room to write it, on the disk or in a quota; removed again" in error
        assert (
            "a checkpoint takes at least 1.39 MB; set stage2.flags.save_total_limit: 2 (resuming needs no more" in error
        )
        assert "the same command again, which goes on from step 18 (all output: " in error
        assert "Traceback" not in said

        said = run.run(status=1)
        (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "going on from step 18" in said
        assert "trainer: 1.39 MB are needed for checkpoints, 1." in error
        assert "1 more than now will be there at once, of at least 1.39 MB each (4 are kept" in error
        assert run.steps_done() == 24  # recorded by the first start alone

        remount(run.work_dir, "size=20m")
        said = run.run()
        assert "going on from step 18" in said
        assert run.metrics["num_samples_seen"] == run.metrics["num_samples_expected"]
        assert [resume["step"] for resume in run.metrics["resumes"]] == [18]
