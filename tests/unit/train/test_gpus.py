"""Which GPUs a child would see."""

import pytest

from scripts.train import gpus
from scripts.train.gpus import may_have_gpus, visible_gpus


@pytest.mark.parametrize("hiding", ["", "-1"])
def test_gpus_that_are_hidden_are_none(hiding: str) -> None:
    assert not may_have_gpus({"CUDA_VISIBLE_DEVICES": hiding})
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": hiding}) == []


def test_chosen_gpus_keep_their_names_and_order() -> None:
    chosen = {"CUDA_VISIBLE_DEVICES": "3,GPU-8f2c"}
    assert may_have_gpus(chosen)
    assert visible_gpus(chosen) == ["3", "GPU-8f2c"]


def test_without_a_choice_the_drivers_device_files_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "GPU_DEVICE_NODES", ("/dev/there-is-no-such-device", "/dev/null"))
    assert may_have_gpus({})
    monkeypatch.setattr(gpus, "GPU_DEVICE_NODES", ("/dev/there-is-no-such-device",))
    assert not may_have_gpus({})
