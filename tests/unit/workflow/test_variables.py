"""Variables that ms-swift reads as numbers hold numbers."""

from typing import Any

import pytest

from scripts.workflow.variables import variable_findings


@pytest.mark.parametrize(
    ("environment", "finding"),
    [
        ({"MAX_PIXELS": "1280*28*28"}, 'x.MAX_PIXELS: "1280*28*28" found, a whole number from 1 on expected'),
        ({"MAX_PIXELS": 1003520.0}, "x.MAX_PIXELS: 1003520.0 found"),
        ({"MAX_PIXELS": ""}, 'x.MAX_PIXELS: "" found'),
        ({"MAX_PIXELS": "1003520 "}, 'x.MAX_PIXELS: "1003520 " found'),
        ({"MIN_PIXELS": -1}, "x.MIN_PIXELS: -1 found"),
        ({"VIDEO_MAX_PIXELS": "50k"}, 'x.VIDEO_MAX_PIXELS: "50k" found'),
        ({"FPS_MAX_FRAMES": 0}, "x.FPS_MAX_FRAMES: 0 found"),
        ({"OMP_NUM_THREADS": "all"}, 'x.OMP_NUM_THREADS: "all" found'),
        ({"FPS": "fast"}, 'x.FPS: "fast" found, a number above 0 expected'),
        ({"FPS": "nan"}, 'x.FPS: "nan" found'),
        ({"MAX_PIXELS": 784}, "x.MAX_PIXELS: 784 found, but MIN_PIXELS is by default 3136"),
        ({"MAX_PIXELS": 3136, "MIN_PIXELS": 4000}, "x.MAX_PIXELS: 3136 found, but MIN_PIXELS is 4000"),
        ({"FPS_MIN_FRAMES": 9, "FPS_MAX_FRAMES": "8"}, "x.FPS_MAX_FRAMES: 8 found, but FPS_MIN_FRAMES is 9"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(environment: dict[str, Any], finding: str) -> None:
    (found,) = variable_findings("x", environment)
    assert found.startswith(finding)


@pytest.mark.parametrize(
    "environment", [{"MAX_PIXELS": 1003520}, {"MAX_PIXELS": "3136", "FPS": 2.5}, {"NCCL_DEBUG": "INFO $(x)"}, {}]
)
def test_other_variables_are_taken(environment: dict[str, Any]) -> None:
    assert list(variable_findings("x", environment)) == []
