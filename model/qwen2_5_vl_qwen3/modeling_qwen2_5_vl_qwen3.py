"""Qwen2.5-VL's vision tower with a true Qwen3 decoder: q/k norms, no qkv bias, m-RoPE. Needs transformers >= 5.

Nothing is computed here: Qwen2.5-VL's forward (pictures, m-RoPE positions, generation) is inherited, and its decoder
layers are replaced by Qwen3's own. On text, where the three m-RoPE positions are equal, the logits are therefore
those of the Qwen3 donor, bit for bit.
"""

from torch import nn
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2_5_VLPreTrainedModel,
    Qwen2_5_VLRotaryEmbedding,
    Qwen2_5_VLTextModel,
)
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer, Qwen3RMSNorm

from .configuration_qwen2_5_vl_qwen3 import Qwen2_5_VLQwen3Config, Qwen2_5_VLQwen3TextConfig

_NO_SPLIT_MODULES = ["Qwen3DecoderLayer", "Qwen2_5_VLVisionBlock"]


class Qwen2_5_VLQwen3TextModel(Qwen2_5_VLTextModel):
    """Qwen3's decoder layers under Qwen2.5-VL's text forward (m-RoPE, masks)."""

    config: Qwen2_5_VLQwen3TextConfig
    config_class = Qwen2_5_VLQwen3TextConfig
    _no_split_modules = _NO_SPLIT_MODULES
    _can_record_outputs = {"hidden_states": Qwen3DecoderLayer, "attentions": Qwen3Attention}

    def __init__(self, config: Qwen2_5_VLQwen3TextConfig):
        # Not the parent's __init__: it would build the layers with biases and without norms.
        Qwen2_5_VLPreTrainedModel.__init__(self, config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList(Qwen3DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen2_5_VLRotaryEmbedding(config=config)
        self.has_sliding_layers = "sliding_attention" in config.layer_types
        self.gradient_checkpointing = False
        self.post_init()


class Qwen2_5_VLQwen3Model(Qwen2_5_VLModel):
    """Vision tower and language model, without the head."""

    config: Qwen2_5_VLQwen3Config
    config_class = Qwen2_5_VLQwen3Config
    _no_split_modules = _NO_SPLIT_MODULES

    def __init__(self, config: Qwen2_5_VLQwen3Config):
        Qwen2_5_VLPreTrainedModel.__init__(self, config)
        self.visual = Qwen2_5_VisionTransformerPretrainedModel._from_config(config.vision_config)
        self.language_model = Qwen2_5_VLQwen3TextModel._from_config(config.text_config)
        self.rope_deltas = None
        self.post_init()


class Qwen2_5_VLQwen3ForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
    """The grafted model with its language-model head."""

    config: Qwen2_5_VLQwen3Config
    config_class = Qwen2_5_VLQwen3Config
    _no_split_modules = _NO_SPLIT_MODULES

    def __init__(self, config: Qwen2_5_VLQwen3Config):
        Qwen2_5_VLPreTrainedModel.__init__(self, config)
        self.model = Qwen2_5_VLQwen3Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


# On disk the published names: visual.*, model.*, lm_head.* (the last two are Qwen3's own). transformers has no such
# mapping for a model type that it does not know, and without one it would re-initialise every tensor with a mere report.
# The class without the head has a mapping of its own: AutoModel, which vLLM's Transformers backend uses, would lose the decoder.
for _kind in ("Model", "ForConditionalGeneration"):
    _mapping = get_checkpoint_conversion_mapping(f"Qwen2_5_VL{_kind}") or get_checkpoint_conversion_mapping(
        f"Qwen2VL{_kind}"
    )
    register_checkpoint_conversion_mapping(f"Qwen2_5_VLQwen3{_kind}", _mapping, overwrite=True)
