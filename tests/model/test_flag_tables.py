"""The tables of flags and of variables say what the installed libraries know. In the train environment."""

import re
from pathlib import Path

import pytest

swift = pytest.importorskip("swift", reason="the train environment has it")

from scripts.train.flag_conflicts import CHOICES, LOSS_SCALES, OPTIMIZER_PACKAGES, REPORTING_PACKAGES  # noqa: E402
from scripts.workflow.variables import COUNT_VARIABLES, DEFAULT_MIN_PIXELS, RATE_VARIABLES  # noqa: E402


def test_the_choices_are_those_of_transformers_and_ms_swift() -> None:
    from swift.optimizers.mapping import optimizers_map
    from transformers.trainer_utils import IntervalStrategy, SchedulerType

    assert (
        {each.value for each in IntervalStrategy} == set(CHOICES["eval_strategy"]) == set(CHOICES["logging_strategy"])
    )
    # Two of them need an evaluation during training.
    assert {each.value for each in SchedulerType} == {*CHOICES["lr_scheduler_type"], "reduce_lr_on_plateau", "greedy"}
    assert set(optimizers_map) == set(CHOICES["optimizer"])


def test_the_loss_scales_are_those_of_ms_swift() -> None:
    from swift.loss_scale.base import ALL_BASE_STRATEGY
    from swift.loss_scale.mapping import loss_scale_map

    assert {*ALL_BASE_STRATEGY, *loss_scale_map} == set(LOSS_SCALES)


def test_every_optimizer_and_every_place_to_report_to_is_known() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.training_args import OptimizerNames

    assert {each.value for each in OptimizerNames} == set(OPTIMIZER_PACKAGES)
    assert {*INTEGRATION_TO_CALLBACK, "all", "none"} == set(REPORTING_PACKAGES)


def test_the_variables_of_pictures_are_those_that_ms_swift_reads_as_numbers() -> None:
    text = (Path(swift.__file__).parent / "model/models/qwen.py").read_text()
    listed = re.search(r"def patch_qwen_vl_utils.*?for key in \[(.*?)\]:", text, re.DOTALL)
    assert listed is not None
    assert {name.upper() for name in re.findall(r"'(\w+)'", listed[1])} <= COUNT_VARIABLES | RATE_VARIABLES


def test_the_smallest_picture_is_that_of_qwen_vl_utils() -> None:
    from qwen_vl_utils import vision_process

    assert vision_process.IMAGE_MIN_TOKEN_NUM * 28 * 28 == DEFAULT_MIN_PIXELS
