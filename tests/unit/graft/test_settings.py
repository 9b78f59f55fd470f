"""The section `graft` is checked where it is read: its keys, their values, and options that contradict each other."""

import json
from typing import Any

import pytest

from helpers.tiny_graft import SECTION, graft_settings
from scripts.common.errors import UserError
from scripts.common.settings import json_settings
from scripts.graft.settings import GraftSettings


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        json_settings(GraftSettings, "graft")(json.dumps(SECTION | changes))
    return str(caught.value)


def test_a_refit_of_what_is_not_lost_is_refused() -> None:
    assert refusal(calibration="affine").startswith(
        "graft.calibration: affine contradicts graft.architecture: qwen3, which loses nothing"
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("calibration", "gains", 'graft.calibration: "gains" found; expected none or affine'),
        ("architecture", "qwen2", 'graft.architecture: "qwen2" found; expected qwen3 or qwen2_5_vl'),
        ("aligner", "new", 'graft.aligner: "new" found; expected fresh or keep'),
        ("max_shard_gb", "4", 'graft.max_shard_gb: "4" found; expected float'),
    ],
)
def test_a_value_that_no_program_knows_is_named(key: str, value: str, expected: str) -> None:
    assert refusal(**{key: value}) == expected


def test_an_affine_calibration_of_the_stock_architecture_is_a_refit() -> None:
    assert graft_settings(architecture="qwen2_5_vl", calibration="affine").is_refitted
    assert not graft_settings().is_refitted
