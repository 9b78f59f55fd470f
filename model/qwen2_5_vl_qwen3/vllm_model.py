"""The grafted architecture in vLLM's own layers: its Qwen2.5-VL with its Qwen3 as language model.

Names on disk need no mapping of ours: vLLM's Qwen2.5-VL reads `visual.*`, `model.*` and `lm_head.*`, its Qwen3 `q_norm`
and `k_norm`. vLLM's Qwen2.5-VL has no argument for the language model, so its constructor's call for one is answered here;
that is bound to vLLM's inside, hence the guard on the version.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vllm

from .vllm_plugin import require_tested_vllm

require_tested_vllm(vllm.__version__)

from torch import nn  # noqa: E402
from vllm.config import VllmConfig  # noqa: E402
from vllm.model_executor.models import qwen2_5_vl as stock  # noqa: E402
from vllm.multimodal import MULTIMODAL_REGISTRY  # noqa: E402


@contextmanager
def _qwen3_as_language_model() -> Iterator[None]:
    """Within it, vLLM's Qwen2.5-VL gets a Qwen3 where it asks for its language model."""
    build = stock.init_vllm_registered_model

    def build_qwen3(*, vllm_config: VllmConfig, prefix: str, **_: Any) -> nn.Module:
        # Qwen3ForCausalLM reads its sizes from hf_config itself, Qwen2ForCausalLM from hf_config.get_text_config().
        text_config = vllm_config.model_config.hf_config.get_text_config()
        return build(vllm_config, prefix=prefix, hf_config=text_config, architectures=["Qwen3ForCausalLM"])

    stock.init_vllm_registered_model = build_qwen3
    try:
        yield
    finally:
        stock.init_vllm_registered_model = build


@MULTIMODAL_REGISTRY.register_processor(
    stock.Qwen2_5_VLMultiModalProcessor,
    info=stock.Qwen2_5_VLProcessingInfo,
    dummy_inputs=stock.Qwen2_5_VLDummyInputsBuilder,
)
class Qwen2_5_VLQwen3ForConditionalGeneration(stock.Qwen2_5_VLForConditionalGeneration):
    """Pictures, video, m-RoPE and LoRA as in Qwen2.5-VL; the decoder is Qwen3's."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        with _qwen3_as_language_model():
            super().__init__(vllm_config=vllm_config, prefix=prefix)
