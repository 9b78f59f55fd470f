"""Configuration of a Qwen2.5-VL vision tower on a Qwen3 language model. Needs transformers >= 5.

It is Qwen2.5-VL's configuration with the two things that Qwen3's attention has of its own:
a head size that is not hidden_size / num_attention_heads, and no q/k/v biases.
"""

from huggingface_hub.dataclasses import strict
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
)


@strict
class Qwen2_5_VLQwen3TextConfig(Qwen2_5_VLTextConfig):
    """The language model's part: Qwen3's fields, and `mrope_section` among its rope parameters."""

    model_type = "qwen2_5_vl_qwen3_text"
    head_dim: int = 128
    attention_bias: bool = False
    rms_norm_eps: float = 1e-6


@strict
class Qwen2_5_VLQwen3Config(Qwen2_5_VLConfig):
    """The whole: `vision_config` as in Qwen2.5-VL, `text_config` as above."""

    model_type = "qwen2_5_vl_qwen3"
    sub_configs = {"vision_config": Qwen2_5_VLVisionConfig, "text_config": Qwen2_5_VLQwen3TextConfig}
