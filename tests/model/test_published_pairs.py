"""The published pairs against transformers' own classes: names and shapes at full size, loading when scaled down."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig

from helpers.published_pairs import (
    CONFIGS_DIR,
    LLM_NAMES,
    PAIRS,
    STOCK_LLM_NAMES,
    VL_NAMES,
    llm_shapes,
    vl_shapes,
    write_scaled_pair,
)
from helpers.tiny_graft import graft_settings, run_graft
from scripts.common.errors import UserError
from scripts.graft.config import derive_config
from scripts.graft.derive_config import derive_from_donors
from scripts.graft.donor_configs import (
    VISION_DEFAULTS,
    ConfigReader,
    language_shape,
    read_language_donor,
    read_vision_donor,
    text_section,
    vision_shape,
)
from scripts.graft.donor_tensors import published_name
from scripts.graft.shapes import Shapes, language_shapes, vision_shapes

MODEL_DIR = Path(__file__).resolve().parents[2] / "model"
sys.path.append(str(MODEL_DIR))
from qwen2_5_vl_qwen3 import Qwen2_5_VLQwen3ForConditionalGeneration  # noqa: E402


def class_shapes(model: torch.nn.Module) -> Shapes:
    """Published names and shapes of a model's parameters; what is tied is one parameter, the embedding."""
    return {published_name(name): tuple(parameter.shape) for name, parameter in model.named_parameters()}


def on_meta(model_class: Any, config: Any) -> torch.nn.Module:
    """A model of any size without memory."""
    with torch.device("meta"):
        model = model_class._from_config(config) if hasattr(model_class, "_from_config") else model_class(config)
    model.tie_weights()
    return model


@pytest.mark.parametrize("llm_name", LLM_NAMES)
def test_a_language_donors_tensors_are_those_of_its_class(llm_name: str) -> None:
    config = AutoConfig.from_pretrained(CONFIGS_DIR / llm_name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    assert class_shapes(model) == llm_shapes(llm_name)


@pytest.mark.parametrize("vl_name", VL_NAMES)
def test_a_vision_donors_tensors_are_those_of_its_class(vl_name: str) -> None:
    model = on_meta(Qwen2_5_VLForConditionalGeneration, AutoConfig.from_pretrained(CONFIGS_DIR / vl_name))
    assert class_shapes(model) == vl_shapes(vl_name)


@pytest.mark.parametrize(
    ("vl_name", "llm_name", "architecture"),
    [(*pair, "qwen3") for pair in PAIRS] + [(*pair, "qwen2_5_vl") for pair in PAIRS if pair[1] in STOCK_LLM_NAMES],
)
def test_the_planned_result_is_what_the_derived_configurations_class_holds(
    tmp_path: Path, vl_name: str, llm_name: str, architecture: str
) -> None:
    donors = read_vision_donor(CONFIGS_DIR / vl_name), read_language_donor(CONFIGS_DIR / llm_name)
    derived = derive_config(*donors, graft_settings(architecture=architecture))
    (tmp_path / "config.json").write_text(json.dumps(derived))
    classes = {"qwen3": Qwen2_5_VLQwen3ForConditionalGeneration, "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration}
    model = on_meta(classes[architecture], classes[architecture].config_class.from_pretrained(tmp_path))
    reader = ConfigReader(derived, tmp_path / "config.json")
    text = language_shape(text_section(reader), derived["tie_word_embeddings"])
    planned = vision_shapes(vision_shape(reader.child("vision_config"))) | language_shapes(
        text, qk_norm=architecture == "qwen3", qkv_bias=architecture == "qwen2_5_vl"
    )
    assert class_shapes(model) == planned


def test_what_a_vision_config_leaves_out_has_the_classs_defaults() -> None:
    defaults = Qwen2_5_VLVisionConfig()
    assert {
        key: list(value) if isinstance(value := getattr(defaults, key), tuple) else value for key in VISION_DEFAULTS
    } == VISION_DEFAULTS


@pytest.mark.parametrize(("vl_name", "llm_name"), PAIRS)
def test_a_scaled_down_pair_is_grafted_and_loaded_and_its_text_logits_are_the_donors(
    root: Path, tmp_path: Path, vl_name: str, llm_name: str
) -> None:
    donors = write_scaled_pair(tmp_path / "donors", vl_name, llm_name)
    for architecture in ("qwen3", "qwen2_5_vl"):
        graft_dir = tmp_path / architecture
        if architecture == "qwen2_5_vl" and llm_name not in STOCK_LLM_NAMES:
            with pytest.raises(UserError, match=r"set graft.architecture: qwen3"):
                derive_from_donors(*donors, graft_settings(architecture=architecture))
            continue
        run_graft(root, donors, graft_dir, architecture=architecture)
        model, info = AutoModelForImageTextToText.from_pretrained(
            graft_dir, trust_remote_code=True, output_loading_info=True, dtype="auto"
        )
        assert not any(info.values()), info
        ids = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(0))
        donor = AutoModelForCausalLM.from_pretrained(donors[1], dtype="auto")
        with torch.inference_mode():
            is_equal = torch.equal(model(input_ids=ids).logits, donor(input_ids=ids).logits)
        assert is_equal == (architecture == "qwen3")
