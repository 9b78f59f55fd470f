"""Registers the grafted architecture with transformers' Auto classes.

Importing this package is enough for `AutoModelForImageTextToText.from_pretrained` to find the classes;
a checkpoint directory carries the same two source files for `trust_remote_code=True`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from .configuration_qwen2_5_vl_qwen3 import Qwen2_5_VLQwen3Config, Qwen2_5_VLQwen3TextConfig
from .modeling_qwen2_5_vl_qwen3 import Qwen2_5_VLQwen3ForConditionalGeneration, Qwen2_5_VLQwen3Model

AutoConfig.register(Qwen2_5_VLQwen3Config.model_type, Qwen2_5_VLQwen3Config, exist_ok=True)
AutoConfig.register(Qwen2_5_VLQwen3TextConfig.model_type, Qwen2_5_VLQwen3TextConfig, exist_ok=True)
AutoModel.register(Qwen2_5_VLQwen3Config, Qwen2_5_VLQwen3Model, exist_ok=True)
AutoModelForImageTextToText.register(Qwen2_5_VLQwen3Config, Qwen2_5_VLQwen3ForConditionalGeneration, exist_ok=True)

# So that save_pretrained writes the two source files beside the weights, and what any trainer saves loads as it stands.
Qwen2_5_VLQwen3Config.register_for_auto_class()
Qwen2_5_VLQwen3Model.register_for_auto_class("AutoModel")
Qwen2_5_VLQwen3ForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = [
    "Qwen2_5_VLQwen3Config",
    "Qwen2_5_VLQwen3ForConditionalGeneration",
    "Qwen2_5_VLQwen3Model",
    "Qwen2_5_VLQwen3TextConfig",
]
