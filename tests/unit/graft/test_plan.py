"""Every published Qwen3 in every published Qwen2.5-VL is planned tensor by tensor."""

from collections import Counter
from typing import Any

import pytest

from helpers.published_pairs import CONFIGS_DIR, PAIRS, STOCK_LLM_NAMES, llm_shapes, vl_shapes, without_weights
from helpers.tiny_graft import graft_settings
from scripts.graft.config import derive_config
from scripts.graft.donor_configs import read_language_donor, read_vision_donor
from scripts.graft.donor_tensors import DonorTensors, check_tensors
from scripts.graft.plan import PlannedTensor, plan_graft


def derived(vl_name: str, llm_name: str, architecture: str) -> dict[str, Any]:
    donors = read_vision_donor(CONFIGS_DIR / vl_name), read_language_donor(CONFIGS_DIR / llm_name)
    return derive_config(*donors, graft_settings(architecture=architecture))


def plan(vl_name: str, llm_name: str, architecture: str, aligner: str) -> list[PlannedTensor]:
    """The plan for donors whose files hold exactly what their configurations imply."""
    config = derived(vl_name, llm_name, architecture)
    vl, llm = vl_shapes(vl_name), llm_shapes(llm_name)
    donors = (
        DonorTensors("vl", without_weights(vl), vl, vl_name),
        DonorTensors("llm", without_weights(llm), llm, llm_name),
    )
    for donor in donors:
        check_tensors(donor)
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
    settings = graft_settings(architecture=architecture, aligner=aligner)
    return plan_graft(*donors, expected, settings, mlp_2_std=0.1, refit={})


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
