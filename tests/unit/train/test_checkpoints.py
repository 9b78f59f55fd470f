"""An export is whole or absent, and has the trained weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.kills import killed_at_each_removal
from helpers.stage import stage_settings
from helpers.trained_checkpoint import WEIGHTS, make_model, make_trained
from scripts.common.reading import read_object
from scripts.donors.safetensors_files import read_checkpoint
from scripts.train import checkpoints
from scripts.train.checkpoints import TrainerState, is_finished, publish_checkpoint, read_trainer_state
from scripts.train.losses import LossPoint
from scripts.train.settings import ExportedSettings

SETTINGS = ExportedSettings("stage1", 1, **vars(stage_settings()))


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return make_model(tmp_path / "graft")


def test_an_export_has_the_inputs_files_the_trained_weights_and_always_an_index(
    model_dir: Path, tmp_path: Path
) -> None:
    trained = make_trained(tmp_path / "trained", {name: [9.0, 9.0] for name in WEIGHTS})
    (model_dir / "README.md").write_text("the input's own model card")
    target = tmp_path / "out" / "checkpoint"
    publish_checkpoint(trained, model_dir, target, SETTINGS)
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json", "settings.json",
    ]  # fmt: skip
    assert (target / "model-00001-of-00001.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert read_checkpoint(target).keys() == WEIGHTS.keys()
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 24


def test_a_killed_export_leaves_nothing_and_the_next_one_cleans_up(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trained(tmp_path / "trained", WEIGHTS)
    target = tmp_path / "out" / "checkpoint"

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "fsync_directory", power_cut)
        with pytest.raises(KeyboardInterrupt):
            publish_checkpoint(trained, model_dir, target, SETTINGS)
    assert not target.exists()
    publish_checkpoint(trained, model_dir, target, SETTINGS)
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


def test_an_older_export_is_replaced(model_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "checkpoint"
    publish_checkpoint(make_trained(tmp_path / "one", WEIGHTS), model_dir, target, SETTINGS)
    publish_checkpoint(make_trained(tmp_path / "two", WEIGHTS), model_dir, target, replace(SETTINGS, seed=2))
    assert read_object(ExportedSettings, target / "settings.json") == replace(SETTINGS, seed=2)
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


def test_wherever_an_export_over_an_older_one_is_killed_the_next_one_is_whole(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the older one was killed, too, while it wrote its result beside it."""
    old, new = (
        make_trained(tmp_path / name, {**WEIGHTS, "visual.merger.mlp.2.weight": [value, 4.0]})
        for name, value in (("one", 3.5), ("two", 4.5))
    )
    target = tmp_path / "out" / "checkpoint"

    def export_the_older() -> None:
        shutil.rmtree(target.parent, ignore_errors=True)
        publish_checkpoint(old, model_dir, target, SETTINGS)
        (target.parent / ".checkpoint.check.json.99.tmp").write_text("{")

    def export() -> None:
        publish_checkpoint(new, model_dir, target, SETTINGS)

    for _ in killed_at_each_removal(export, export_the_older, monkeypatch):
        assert not target.exists() or len(read_checkpoint(target)) == len(WEIGHTS)
        export()
        assert (target / "model-00001-of-00001.safetensors").read_bytes() == (new / "model.safetensors").read_bytes()
        assert sorted(path.name for path in target.parent.iterdir()) == [".checkpoint.check.json.99.tmp", "checkpoint"]


def test_the_settings_of_an_export_keep_the_order_of_their_keys(model_dir: Path, tmp_path: Path) -> None:
    publish_checkpoint(make_trained(tmp_path / "trained", WEIGHTS), model_dir, tmp_path / "checkpoint", SETTINGS)
    assert list(json.loads((tmp_path / "checkpoint/settings.json").read_text())) == [
        "stage", "seed", "datasets", "deepspeed", "environment", "flags", "num_nodes", "num_processes_per_node",
    ]  # fmt: skip


def test_a_checkpoint_of_the_last_step_is_finished(tmp_path: Path) -> None:
    checkpoint = make_trained(tmp_path / "checkpoint-4", WEIGHTS)
    assert is_finished(checkpoint)
    state = {"global_step": 4, "max_steps": 8, "log_history": [{"step": 4, "loss": 0.5}]}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    assert not is_finished(checkpoint)
    assert read_trainer_state(checkpoint) == TrainerState(4, 8, [LossPoint(4, 0.5)])


def test_a_training_is_finished_at_the_last_step_alone(tmp_path: Path) -> None:
    for step, global_step, max_steps in ((4, 4, 5), (4, 5, 5), (5, 4, 5), (5, 5, 5)):
        checkpoint = tmp_path / f"{global_step}-of-{max_steps}/checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        state = {"global_step": global_step, "max_steps": max_steps, "log_history": []}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
        assert is_finished(checkpoint) == (step == global_step == max_steps)
