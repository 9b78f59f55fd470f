"""A training that could never be published is ended at the checkpoint that shows it."""

from pathlib import Path

import pytest

from helpers.trained_checkpoint import WEIGHTS, make_model, make_trained
from scripts.train import tensor_changes
from scripts.train.early_proof import EarlyProof

TRAINED, FROZEN = "visual.merger.mlp.2.weight", "visual.patch_embed.proj.weight"
EPOCH_STEPS = 10


class Checkpoints:
    """The input of a training of the aligner, and what is saved at its steps."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.proof = EarlyProof(make_model(directory / "graft"), [f"model.{TRAINED}"], EPOCH_STEPS)

    def problem(self, step: int, **changed: list[float]) -> str | None:
        names = {"trained": TRAINED, "frozen": FROZEN}
        weights = WEIGHTS | {names[name]: values for name, values in changed.items()}
        return self.proof.problem(make_trained(self.directory / f"checkpoint-{step}", weights), step)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path)


def test_a_sound_training_has_no_problem(checkpoints: Checkpoints) -> None:
    for step in (2, 4, 12, 14):
        assert checkpoints.problem(step, trained=[3.0, 4.0 + step]) is None


def test_a_frozen_tensor_that_changed_is_a_problem_at_the_first_checkpoint(checkpoints: Checkpoints) -> None:
    found = checkpoints.problem(2, frozen=[1.0, 2.5])
    assert found is not None
    assert found.startswith(f"step 2: 1 tensor ({FROZEN}) changed though frozen")


def test_a_tensor_that_trains_may_keep_its_bits_until_all_rows_were_seen(checkpoints: Checkpoints) -> None:
    assert checkpoints.problem(2) is None
    assert checkpoints.problem(EPOCH_STEPS - 1) is None
    found = checkpoints.problem(EPOCH_STEPS)
    assert found is not None
    assert found.startswith("step 10: none of the 1 trained tensors of the aligner changed")


def test_a_checkpoint_that_lost_a_tensor_is_a_problem_whenever_it_is_saved(checkpoints: Checkpoints) -> None:
    assert checkpoints.problem(2, trained=[3.0, 5.0]) is None
    without = {name: values for name, values in WEIGHTS.items() if name != FROZEN}
    found = checkpoints.proof.problem(make_trained(checkpoints.directory / "checkpoint-3", without), 3)
    assert found is not None
    assert "1 tensor (visual.patch_embed.proj.weight) missing" in found


def test_what_trains_is_read_once_and_what_is_frozen_twice(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    same_bytes = tensor_changes.same_bytes

    def counted(a: tensor_changes.TensorOnDisk, b: tensor_changes.TensorOnDisk) -> bool:
        compared.append(a.name)
        return same_bytes(a, b)

    monkeypatch.setattr(tensor_changes, "same_bytes", counted)
    for step in (2, 4, 12, 14):
        checkpoints.problem(step, trained=[3.0, 4.0 + step])
    assert {name: compared.count(name) for name in WEIGHTS} == {TRAINED: 1, FROZEN: 2, "model.embed_tokens.weight": 2}
