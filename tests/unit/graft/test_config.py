"""config.json for every published Qwen3 in every published Qwen2.5-VL, or a refusal with the alternative."""

from typing import Any

import pytest

from helpers.published_pairs import CONFIGS_DIR, LLM_NAMES, PAIRS, STOCK_LLM_NAMES, VL_NAMES
from helpers.tiny_graft import graft_settings
from scripts.common.errors import UserError
from scripts.graft.config import derive_config
from scripts.graft.donor_configs import VISION_DEFAULTS, read_language_donor, read_vision_donor


def derived(vl_name: str, llm_name: str, architecture: str) -> dict[str, Any]:
    donors = read_vision_donor(CONFIGS_DIR / vl_name), read_language_donor(CONFIGS_DIR / llm_name)
    return derive_config(*donors, graft_settings(architecture=architecture))


@pytest.mark.parametrize(("vl_name", "llm_name"), [pair for pair in PAIRS if pair[1] not in STOCK_LLM_NAMES])
def test_a_pair_that_the_stock_architecture_cannot_hold_is_refused_with_the_alternative(
    vl_name: str, llm_name: str
) -> None:
    with pytest.raises(
        UserError, match=r"head_dim is 128; .*; set graft.architecture: qwen3, which .* or take another"
    ):
        derived(vl_name, llm_name, "qwen2_5_vl")


def test_there_are_24_pairs() -> None:
    assert len(PAIRS) == len(LLM_NAMES) * len(VL_NAMES) == 24
    assert sorted(path.parent.name for path in CONFIGS_DIR.glob("*/config.json")) == sorted(LLM_NAMES + VL_NAMES)


def test_a_vision_config_that_leaves_out_the_classs_defaults_is_completed() -> None:
    """Qwen2.5-VL-32B-Instruct was saved again by transformers 4.49, which leaves them out."""
    published = read_vision_donor(CONFIGS_DIR / "Qwen2.5-VL-32B-Instruct").values["vision_config"]
    assert not published.keys() & VISION_DEFAULTS.keys()
    sibling = read_vision_donor(CONFIGS_DIR / "Qwen2.5-VL-72B-Instruct").values["vision_config"]
    for architecture in ("qwen3", "qwen2_5_vl"):
        vision = derived("Qwen2.5-VL-32B-Instruct", "Qwen3-8B", architecture)["vision_config"]
        assert {key: vision[key] for key in VISION_DEFAULTS} == {key: sibling[key] for key in VISION_DEFAULTS}
