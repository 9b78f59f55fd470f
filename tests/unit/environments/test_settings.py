"""Where environments are, and which of their settings contradict each other."""

import pytest

from scripts.environments.settings import EnvironmentSettings, serving_role


@pytest.mark.parametrize(
    ("settings", "role", "expected"),
    [
        (EnvironmentSettings("venv", "train"), "train", ".venvs/train"),
        (EnvironmentSettings("venv", "train_flash_attn"), "train", ".venvs/train_flash_attn"),
        (EnvironmentSettings("venv", "train_flash_attn"), "evaluate", ".venvs/evaluate"),
        (EnvironmentSettings("apptainer", "train"), "train", ".venvs/image/train"),
    ],
)
def test_each_role_has_a_directory_of_its_own(settings: EnvironmentSettings, role: str, expected: str) -> None:
    assert settings.directory(role) == expected


def test_an_image_cannot_hold_flash_attention() -> None:
    (finding,) = EnvironmentSettings("apptainer", "train_flash_attn").findings()
    assert finding.startswith("environments.train: train_flash_attn contradicts kind apptainer")
    assert not list(EnvironmentSettings("venv", "train_flash_attn").findings())


def test_vllm_has_an_environment_of_its_own() -> None:
    assert (serving_role("vllm"), serving_role("transformers")) == ("serve", "train")
