"""Every published Qwen3 in every published Qwen2.5-VL: planned tensor by tensor, or refused with the reason."""

import math
from collections import Counter
from typing import Any

import pytest

from helpers.published_pairs import (
    CONFIGS_DIR,
    LLM_NAMES,
    PAIRS,
    STOCK_LLM_NAMES,
    VL_NAMES,
    llm_shapes,
    settings_of,
    vl_shapes,
    without_weights,
)
from scripts.common.errors import UserError
from scripts.graft.config import derive_config
from scripts.graft.donor_configs import VISION_DEFAULTS, read_language_donor, read_vision_donor
from scripts.graft.plan import Donor, PlannedTensor, check_tensors, plan_graft

TIED_LLM_NAMES = ["Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"]
# Bytes of the checkpoint in bfloat16 as published on the hubs; 0.6B and 1.7B with the head that they save beside the
# embedding (tests/data/configs/README.md).
PUBLISHED_BYTES = {
    "Qwen3-0.6B": 1_503_264_768,
    "Qwen3-1.7B": 4_063_479_808,
    "Qwen3-4B": 8_044_936_192,
    "Qwen3-14B": 29_536_614_400,
    "Qwen3-32B": 65_524_246_528,
    "Qwen2.5-VL-3B-Instruct": 7_509_245_952,
}
SAVED_HEADS = ["Qwen3-0.6B", "Qwen3-1.7B"]


def derived(vl_name: str, llm_name: str, architecture: str) -> dict[str, Any]:
    donors = read_vision_donor(CONFIGS_DIR / vl_name), read_language_donor(CONFIGS_DIR / llm_name)
    return derive_config(*donors, settings_of(architecture), tokenizers={})


def plan(vl_name: str, llm_name: str, architecture: str, aligner: str) -> list[PlannedTensor]:
    """The plan for donors whose files hold exactly what their configurations imply."""
    config = derived(vl_name, llm_name, architecture)
    vl, llm = vl_shapes(vl_name), llm_shapes(llm_name)
    donors = Donor("vl", without_weights(vl), vl_name), Donor("llm", without_weights(llm), llm_name)
    check_tensors(donors[0], vl)
    check_tensors(donors[1], llm)
    # Written out here once more: what the result has to hold.
    width = config["vision_config"]["out_hidden_size"]
    merged = vl["visual.merger.mlp.0.weight"][0]
    expected = {name: shape for name, shape in vl.items() if name.startswith("visual.")}
    expected |= {"visual.merger.mlp.2.weight": (width, merged), "visual.merger.mlp.2.bias": (width,)}
    for name, shape in llm.items():
        if architecture == "qwen3" or not name.endswith(("q_norm.weight", "k_norm.weight")):
            expected[name] = shape
        if architecture == "qwen2_5_vl" and name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            expected[name.replace("weight", "bias")] = shape[:1]
    return plan_graft(*donors, vl, llm, expected, architecture=architecture, aligner=aligner, mlp_2_std=0.1, refit={})


@pytest.mark.parametrize("aligner", ["fresh", "keep"])
@pytest.mark.parametrize(("vl_name", "llm_name"), PAIRS)
def test_a_lossless_graft_of_each_pair_takes_all_of_the_language_donor_and_the_tower(
    vl_name: str, llm_name: str, aligner: str
) -> None:
    entries = plan(vl_name, llm_name, "qwen3", aligner)
    llm, vl = llm_shapes(llm_name), vl_shapes(vl_name)
    copied = {(entry.donor, entry.name): entry.shape for entry in entries if entry.policy == "copied"}
    tower = {name: shape for name, shape in vl.items() if name.startswith("visual.")}
    new = [name for name in tower if name.startswith("visual.merger." + ("mlp.2." if aligner == "keep" else ""))]
    assert copied == {("llm", name): shape for name, shape in llm.items()} | {
        ("vl", name): shape for name, shape in tower.items() if name not in new
    }
    assert sorted(entry.output_name for entry in entries if entry.policy == "initialised") == sorted(new)
    dropped = {entry.name for entry in entries if entry.policy == "dropped"}
    assert dropped == {name for name in vl if not name.startswith("visual.")} | set(new)


@pytest.mark.parametrize(("vl_name", "llm_name"), [pair for pair in PAIRS if pair[1] in STOCK_LLM_NAMES])
def test_the_stock_architecture_loses_the_norms_alone_and_has_zero_biases(vl_name: str, llm_name: str) -> None:
    entries = plan(vl_name, llm_name, "qwen2_5_vl", "fresh")
    num_layers = derived(vl_name, llm_name, "qwen2_5_vl")["num_hidden_layers"]
    lost = Counter(entry.name.split(".")[-2] for entry in entries if (entry.donor, entry.policy) == ("llm", "dropped"))
    assert lost == {"q_norm": num_layers, "k_norm": num_layers}
    biases = [entry for entry in entries if entry.policy == "initialised" and entry.name.startswith("model.")]
    assert len(biases) == 3 * num_layers
    assert {entry.value for entry in biases} == {0.0}


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


@pytest.mark.parametrize("name", PUBLISHED_BYTES)
def test_the_implied_shapes_add_up_to_the_published_bytes(name: str) -> None:
    shapes = llm_shapes(name) if name in LLM_NAMES else vl_shapes(name)
    values = sum(math.prod(shape) for shape in shapes.values())
    if name in SAVED_HEADS:
        values += math.prod(shapes["model.embed_tokens.weight"])
    assert 2 * values == PUBLISHED_BYTES[name]


@pytest.mark.parametrize("llm_name", LLM_NAMES)
def test_tied_donors_have_no_head(llm_name: str) -> None:
    assert ("lm_head.weight" in llm_shapes(llm_name)) == (llm_name not in TIED_LLM_NAMES)


def test_a_vision_config_that_leaves_out_the_classs_defaults_is_completed() -> None:
    """Qwen2.5-VL-32B-Instruct was saved again by transformers 4.49, which leaves them out."""
    published = read_vision_donor(CONFIGS_DIR / "Qwen2.5-VL-32B-Instruct").values["vision_config"]
    assert not published.keys() & VISION_DEFAULTS.keys()
    sibling = read_vision_donor(CONFIGS_DIR / "Qwen2.5-VL-72B-Instruct").values["vision_config"]
    for architecture in ("qwen3", "qwen2_5_vl"):
        vision = derived("Qwen2.5-VL-32B-Instruct", "Qwen3-8B", architecture)["vision_config"]
        assert {key: vision[key] for key in VISION_DEFAULTS} == {key: sibling[key] for key in VISION_DEFAULTS}
