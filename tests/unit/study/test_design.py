"""The study's configuration says which runs there are; runs share what they have in common."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.common.errors import UserError
from study import design


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    loaded = yaml.safe_load((root / "study/config.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_shipped_design_is_valid_and_has_three_seeds_of_all_variants(root: Path, config: dict[str, Any]) -> None:
    design.validate(config, root / "study/schema.yaml")
    runs = list(design.runs(config))
    assert len(runs) == len(set(runs))
    arms = {(run.size, run.arm) for run in runs}
    assert {(run.size, run.arm, run.variant, run.seed) for run in runs} == {
        (*arm, variant, seed) for arm in arms for variant in ("verbatim", "affine", "lossless") for seed in (0, 1, 2)
    }


def test_each_size_compares_the_aligners_and_the_published_rate_with_its_first_arm(config: dict[str, Any]) -> None:
    for of_size in config["sizes"].values():
        first, *others = (config["arms"][arm] for arm in of_size["arms"])
        assert first | {"aligner": "keep"} in others
        assert first | {"stage1_rate": "5e-6"} in others


def test_arms_that_differ_in_stage_2_alone_share_their_stage_1(config: dict[str, Any]) -> None:
    main, slower = (
        next(run for run in design.runs(config) if (run.size, run.arm) == ("small", arm))
        for arm in ("main", "stage 2 slower")
    )
    for pattern in (design.PAIR, design.GRAFT, design.STAGE1):
        assert main.path(Path("r"), pattern) == slower.path(Path("r"), pattern)
    assert main.path(Path("r"), design.STAGE2) != slower.path(Path("r"), design.STAGE2)
    assert str(main.path(Path("r"), design.STAGE2)) == "r/small/seed0/verbatim/fresh/stage1_1e-3/stage2_1e-3_x1"


def test_a_length_is_in_times_the_steps_of_the_size(config: dict[str, Any]) -> None:
    config["sizes"]["small"]["num_steps"] = {"stage1": 10, "stage2": 30}
    assert design.num_steps(config, "small", "stage1") == 10
    assert design.num_steps(config, "small", "stage2", "0.25") == 8
    assert design.num_steps(config, "small", "stage2", "3") == 90


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("seedz",), [0], "seedz: unknown key (did you mean seeds?)"),
        (("sizes", "small", "arms"), ["mian"], "sizes.small.arms: 'mian' found; expected a name of section arms (did you"),
        (("arms", "main", "aligner"), "old", 'arms.main.aligner: "old" found, one of "fresh", "keep" expected'),
        (("arms", "main", "stage1_rate"), 0.001, "arms.main.stage1_rate: 0.001 found, text expected"),
        (("english", "learned_share"), 1.0, "english.learned_share: "),
        (("seeds",), [], "seeds: "),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_refused_by_key(
    root: Path, config: dict[str, Any], keys: tuple[str, ...], value: Any, message: str
) -> None:
    changed = copy.deepcopy(config)
    section = changed
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    with pytest.raises(UserError) as refusal:
        design.validate(changed, root / "study/schema.yaml")
    assert str(refusal.value).startswith(message)
