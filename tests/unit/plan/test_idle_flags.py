"""Flags that change nothing are named with the reason, and no others."""

import pytest

from helpers.stage import whole_model_settings
from scripts.plan.idle_flags import idle_flags

FROZEN = {"freeze_vit": True, "freeze_llm": True}


def test_flags_that_change_something_are_not_named() -> None:
    flags = {"vit_lr": 1e-5, "aligner_lr": 1e-5, "warmup_ratio": 0.1}
    assert list(idle_flags("stage2", whole_model_settings(flags))) == []


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({**FROZEN, "vit_lr": 1e-5}, "vit_lr"),
        ({"freeze_aligner": True, "aligner_lr": 1e-5}, "aligner_lr"),
        ({"lr_scheduler_type": "constant", "warmup_ratio": 0.1}, "warmup_ratio"),
        ({"ddp_timeout": 100}, "ddp_timeout"),
    ],
)
def test_a_flag_without_effect_is_named(flags: dict[str, object], key: str) -> None:
    (line,) = idle_flags("stage2", whole_model_settings(flags))
    assert line.startswith(f"stage2.flags.{key}: ")


def test_settings_of_videos_are_named_where_rows_have_none() -> None:
    (line,) = idle_flags("stage1", whole_model_settings(environment={"FPS_MAX_FRAMES": 12}))
    assert line.startswith("stage1.environment.FPS_MAX_FRAMES: ")
