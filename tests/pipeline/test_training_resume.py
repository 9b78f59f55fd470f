"""Training through real ms-swift: interrupted at any time, the same command ends with the same bits."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from training_run import NUM_ROWS, NUM_STEPS, TrainingRun, is_running, sender, stage_settings, write_dataset

pytestmark = pytest.mark.slow

STAGE1 = {"freeze_vit": True, "freeze_llm": True, "freeze_aligner": False}


@pytest.fixture(scope="module")
def model_dir(root: Path, train_python: Path) -> Path:
    return Path("/tmp/train/graft")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def make_run(root: Path, train_python: Path, model_dir: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201
    def make(name: str, **changes: object) -> TrainingRun:
        directory = tmp_path_factory.mktemp(name)
        return TrainingRun(root, train_python, directory, model_dir, dataset, **changes)

    return make


@pytest.fixture(scope="module")
def undisturbed(make_run) -> TrainingRun:  # noqa: ANN001
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
    index = json.loads((undisturbed.checkpoint_dir / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(undisturbed.weights())
    settings = json.loads((undisturbed.checkpoint_dir / "settings.json").read_text())
    assert settings["flags"] == undisturbed.settings["flags"]


def test_interrupted_four_times_it_ends_with_the_same_bits(make_run, undisturbed: TrainingRun) -> None:  # noqa: ANN001
    run = make_run("interrupted")

    said = run.interrupted(lambda: run.steps_done() >= 3, sender(signal.SIGTERM))
    assert "stopped by SIGTERM; saved at step" in said
    first_stop = run.steps_done()
    assert 3 <= first_stop < NUM_STEPS

    said = run.interrupted(lambda: run.steps_done() >= first_stop + 3, sender(signal.SIGINT))
    assert f"going on from step {first_stop}" in said
    assert "stopped by SIGINT; saved at step" in said
    second_stop = run.steps_done()

    # A power cut in the midst of writing a checkpoint.
    def is_writing() -> bool:
        found = run.work_dir.glob("*/trainer/checkpoint-*")
        return any(path.exists() and not (path / "complete.json").exists() for path in found)

    run.interrupted(is_writing, run.kill_everything)
    assert not run.rank_pids()

    # The launcher alone is killed: the trainer saves and ends by itself, and the next start waits for it.
    killed_at = []

    def kill_launcher(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        killed_at.append(run.steps_done())

    said = run.interrupted(lambda: run.steps_done() >= second_stop + 4, kill_launcher)
    assert "which was cut off while it was written" in said
    last = run.run()
    assert not run.rank_pids()
    assert "going on from step" in last

    assert run.weights() == undisturbed.weights()
    metrics = run.metrics
    assert metrics["num_samples_seen"] == undisturbed.metrics["num_samples_seen"]
    assert len(metrics["resumes"]) == 4
    assert metrics["checkpoint_sha256"] == undisturbed.metrics["checkpoint_sha256"]
    assert "TRAINABLE" in run.log_text
