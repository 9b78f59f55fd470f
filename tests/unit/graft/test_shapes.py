"""The shapes that the published donors' config.json imply are those of the published files."""

import math

import pytest

from helpers.published_pairs import LLM_NAMES, llm_shapes, vl_shapes

TIED_LLM_NAMES = ["Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B"]
# Bytes of the checkpoint in bfloat16 as published on the hubs; 0.6B and 1.7B with the head that they save beside the
# embedding (config/models/README.md).
PUBLISHED_BYTES = {
    "Qwen3-0.6B": 1_503_264_768,
    "Qwen3-1.7B": 4_063_479_808,
    "Qwen3-4B": 8_044_936_192,
    "Qwen3-14B": 29_536_614_400,
    "Qwen3-32B": 65_524_246_528,
    "Qwen2.5-VL-3B-Instruct": 7_509_245_952,
}
SAVED_HEADS = ["Qwen3-0.6B", "Qwen3-1.7B"]


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
