"""metrics.json is read as it was written; one that contradicts itself is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.report_inputs import make_metrics
from scripts.common.errors import UserError
from scripts.common.settings import settings_from
from scripts.train.losses import LossPoint
from scripts.train.metrics import Metrics, read_metrics, write_metrics


@pytest.fixture
def metrics() -> Metrics:
    return settings_from(Metrics, make_metrics("stage1", num_steps=6, seed=0, resumed_at=4))


def test_what_is_written_is_read_again(metrics: Metrics, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, metrics)
    assert read_metrics("stage1", path) == metrics
    assert json.loads(path.read_text())["step_time_s"] == {"median": 0.412, "p90": 0.508}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "stage2"}, "metrics of `stage2` found; expected those of `stage1`"),
        ({"losses": [LossPoint(2, 1.0), LossPoint(2, 0.9)]}, "step 2 follows step 2 in `losses`"),
        ({"losses": [LossPoint(7, 1.0)]}, "a loss of step 7 is logged, but the stage has 6 steps"),
        ({"tensors_changed": {"aligner": 1}}, "modules aligner in one place and aligner, language_model, vision_tower"),
    ],
)
def test_metrics_that_contradict_themselves_are_refused(
    metrics: Metrics, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_metrics(tmp_path / "metrics.json", replace(metrics, **changes))
    with pytest.raises(UserError, match=message):
        read_metrics("stage1", tmp_path / "metrics.json")
