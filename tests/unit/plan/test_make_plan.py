"""What the page of a plan says, of the recipe as it stands."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.errors import UserError
from scripts.plan.make_plan import chosen_gpus, count, plan_lines
from scripts.plan.models import planned_model


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((root / "config.yaml").read_text()))


def lines(config: dict[str, Any], tmp_path: Path, limits: dict[str, tuple[int, int]]) -> list[str]:
    planned = planned_model(config["donors"], {"vl": tmp_path, "llm": tmp_path})
    stages = {stage: config[stage] for stage in ("stage1", "stage2")}
    return list(plan_lines(stages, [tmp_path / "1", tmp_path / "2"], planned, chosen_gpus("h100"), limits))


def test_the_recipe_is_planned_without_anything_fetched(config: dict[str, Any], tmp_path: Path) -> None:
    said = "\n".join(lines(config, tmp_path, {}))
    assert "stage1: 47.2 M of 8.87 G parameters train" in said
    assert "4,361 steps with 128 rows each (1 epochs" in said, "558,128 rows"
    assert "5 of 36.04 GB; at most 108.13 GB on the disk at once" in said
    assert "would fit with per_device_train_batch_size: 1 with gradient_accumulation_steps: 16" in said
    assert "assumed (config/datasets.yaml)" in said and "jobs" not in said


def test_a_walltime_is_divided_into_jobs_and_one_that_ends_before_its_signal_is_said(
    config: dict[str, Any], tmp_path: Path
) -> None:
    said = lines(config, tmp_path, {"stage1": (5, 600), "stage2": (600, 600)})
    first, second = [line for line in said if line.startswith("  jobs")]
    assert "none: SLURM_SIGNAL_S 600 leaves nothing of 5 min" in first
    assert "up to 2 jobs of 600 min" in second and "the disk must take 236" in second


def test_a_stage_with_fewer_rows_than_a_batch_is_said(config: dict[str, Any], tmp_path: Path) -> None:
    config["stage1"]["datasets"] = ["AI-ModelScope/LLaVA-Pretrain#8"]
    said = lines(config, tmp_path, {})
    assert any("fewer rows than a step takes (128)" in line for line in said)
    assert any("2 k tokens" in line for line in said), "8 rows of 250"
    assert any("less than a minute" in line for line in said)


def test_a_flag_without_effect_is_said(config: dict[str, Any], tmp_path: Path) -> None:
    config["stage2"]["environment"]["FPS_MAX_FRAMES"] = 12
    assert any(
        line.startswith("  no effect    stage2.environment.FPS_MAX_FRAMES") for line in lines(config, tmp_path, {})
    )


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("nvidia_a100-sxm4-80gb", ["A100 80 GB"]), ("a100_40gb", ["A100 40 GB"]), ("NVIDIA-H100-80GB", ["H100 80 GB"]),
        ("h200", ["H200"]),
    ],
)  # fmt: skip
def test_slurms_name_of_a_card_is_known(wanted: str, names: list[str]) -> None:
    assert [gpu.name for gpu in chosen_gpus(wanted)] == names


def test_an_unknown_card_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"--gpu: tpu found; expected one of a100_40gb, .*; add it to config/gpus\.yaml"
    ):
        chosen_gpus("tpu")


def test_numbers_have_three_digits_and_a_unit() -> None:
    assert [count(each) for each in (999, 47_185_920, 8.87e9, 1.5e12)] == ["999", "47.2 M", "8.87 G", "1.5 T"]
