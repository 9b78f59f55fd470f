"""The published donors: every Qwen3 with every Qwen2.5-VL, at full size without weights, and scaled down with them."""

import json
from pathlib import Path
from typing import Any

from helpers.tiny_donor_files import write_tiny_donors
from scripts.donors.safetensors_files import DTYPE_BYTES, TensorOnDisk
from scripts.graft.donor_configs import (
    language_shape,
    read_language_donor,
    read_vision_donor,
    text_section,
    tied,
    vision_shape,
)
from scripts.graft.shapes import Shapes, language_shapes, vision_shapes

LLM_NAMES = [f"Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B")]
VL_NAMES = [f"Qwen2.5-VL-{size}-Instruct" for size in ("3B", "7B", "32B", "72B")]
# head_dim is hidden_size / num_attention_heads in these alone, as Qwen2.5-VL's own classes demand.
STOCK_LLM_NAMES = ["Qwen3-1.7B", "Qwen3-8B", "Qwen3-14B"]
PAIRS = [(vl_name, llm_name) for vl_name in VL_NAMES for llm_name in LLM_NAMES]
CONFIGS_DIR = Path(__file__).resolve().parents[2] / "config/models"

# head_dim is then 16 and mrope_section [2, 3, 3], one eighth of the published ones.
SCALE = 8
DTYPES = ["bfloat16", "float16", "float32"]


def vl_shapes(vl_name: str) -> Shapes:
    """Names and shapes of a vision donor's tensors, as its published config.json implies them."""
    vl = read_vision_donor(CONFIGS_DIR / vl_name)
    text = language_shape(text_section(vl), tied(vl))
    return vision_shapes(vision_shape(vl.child("vision_config"))) | language_shapes(text, qk_norm=False, qkv_bias=True)


def llm_shapes(llm_name: str) -> Shapes:
    """The same of a language donor."""
    llm = read_language_donor(CONFIGS_DIR / llm_name)
    return language_shapes(language_shape(llm, tied(llm)), qk_norm=True, qkv_bias=False)


def without_weights(shapes: Shapes, dtype: str = "BF16") -> dict[str, TensorOnDisk]:
    """Tensors of these shapes, one after the other in a file that is not there."""
    tensors, offset = {}, 0
    for name, shape in shapes.items():
        num_bytes = DTYPE_BYTES[dtype]
        for size in shape:
            num_bytes *= size
        tensors[name] = TensorOnDisk(name, Path("model.safetensors"), offset, num_bytes, dtype, shape)
        offset += num_bytes
    return tensors


def _scaled_language(config: dict[str, Any]) -> dict[str, Any]:
    """Heads, head sizes and tying as published, everything else as small as it goes."""
    num_heads = config["num_attention_heads"] // 4
    head_size = config["hidden_size"] // config["num_attention_heads"] // SCALE
    return {
        "num_attention_heads": num_heads,
        "num_key_value_heads": max(1, config["num_key_value_heads"] // 4),
        "hidden_size": num_heads * head_size,
        "intermediate_size": config["intermediate_size"] // 128,
        "num_hidden_layers": 2,
        "tie_word_embeddings": config["tie_word_embeddings"],
        "initializer_range": config["initializer_range"],
    }


def write_scaled_pair(directory: Path, vl_name: str, llm_name: str) -> tuple[Path, Path]:
    """The pair scaled down, in every style that donors come in: dtypes, one file or shards, old or new tensor names."""
    vl, llm = (json.loads((CONFIGS_DIR / name / "config.json").read_text()) for name in (vl_name, llm_name))
    number = PAIRS.index((vl_name, llm_name))
    return write_tiny_donors(
        directory,
        dtype=DTYPES[number % len(DTYPES)],
        layout=["legacy", "new"][number % 2],
        num_shards=[3, 1][number % 4 // 2],
        vl=_scaled_language(vl),
        vision={"intermediate_size": vl["vision_config"]["intermediate_size"] // 64, "out_hidden_size": 64},
        llm={**_scaled_language(llm), "head_dim": llm["head_dim"] // SCALE},
        seed=number,
    )
