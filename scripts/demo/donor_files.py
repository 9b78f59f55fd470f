"""The two donors' files, in the form in which Qwen2.5-VL and Qwen3 are on the hubs. Needs torch and transformers.

config.json has the published keys (written by transformers 4.41 and 4.51, before rope and text fields moved), weights
have the published names and lie in shards with an index: a program that reads these donors can read the real ones.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, PreTrainedModel, Qwen2_5_VLForConditionalGeneration, Qwen3ForCausalLM

from scripts.common.files import write_json_atomically
from scripts.demo.qwen_tokenizer import QWEN3_CHAT_TEMPLATE, VL_CHAT_TEMPLATE, build_tokenizer, save_tokenizer
from scripts.demo.settings import LanguageSizes, Qwen3Sizes, VisionTowerSizes

# Everything that a donor's directory may hold, as glob patterns.
DONOR_FILE_NAMES = ("*.json", "merges.txt", "*.safetensors")

# Small, so that even the demo's donors come in several shards, as the real ones do.
MAX_SHARD_BYTES = 500_000

# Qwen pads its vocabulary to a multiple of this.
VOCABULARY_MULTIPLE = 128

# Qwen2VLImageProcessor's (and CLIP's) normalisation, as in the published preprocessor_config.json.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

# mrope_section of the published config: 16, 24 and 24 of head_dim / 2 = 64 for time, height and width.
_PUBLISHED_MROPE_SHARES = (16 / 64, 24 / 64, 24 / 64)


def padded_vocabulary_size(tokenizer: Tokenizer) -> int:
    """The number of embeddings for a tokenizer: rounded up, as Qwen does."""
    return -(-tokenizer.get_vocab_size() // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def mrope_section(head_dim: int) -> list[int]:
    """The published shares of time, height and width at another head size."""
    half = head_dim // 2
    height = round(half * _PUBLISHED_MROPE_SHARES[1])
    return [half - 2 * height, height, height]


def vl_config(tokenizer: Tokenizer, vision: VisionTowerSizes, language: LanguageSizes) -> dict[str, Any]:
    """config.json of the vision donor."""
    head_dim = language.hidden_size // language.num_attention_heads
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "vision_start_token_id": tokenizer.token_to_id("<|vision_start|>"),
        "vision_end_token_id": tokenizer.token_to_id("<|vision_end|>"),
        "vision_token_id": tokenizer.token_to_id("<|vision_pad|>"),
        "image_token_id": tokenizer.token_to_id("<|image_pad|>"),
        "video_token_id": tokenizer.token_to_id("<|video_pad|>"),
        "hidden_act": "silu",
        "hidden_size": language.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": language.intermediate_size,
        "max_position_embeddings": 128000,
        "max_window_layers": language.num_hidden_layers,
        "model_type": "qwen2_5_vl",
        "num_attention_heads": language.num_attention_heads,
        "num_hidden_layers": language.num_hidden_layers,
        "num_key_value_heads": language.num_key_value_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": vision.depth,
            "hidden_act": "silu",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_heads": vision.num_heads,
            "in_chans": 3,
            "out_hidden_size": language.hidden_size,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [vision.depth - 1],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": mrope_section(head_dim)},
        "vocab_size": padded_vocabulary_size(tokenizer) + VOCABULARY_MULTIPLE,
    }


def llm_config(tokenizer: Tokenizer, language: Qwen3Sizes) -> dict[str, Any]:
    """config.json of the language donor."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "head_dim": language.head_dim,
        "hidden_act": "silu",
        "hidden_size": language.hidden_size,
        "initializer_range": language.initializer_range,
        "intermediate_size": language.intermediate_size,
        "max_position_embeddings": 40960,
        "max_window_layers": language.num_hidden_layers,
        "model_type": "qwen3",
        "num_attention_heads": language.num_attention_heads,
        "num_hidden_layers": language.num_hidden_layers,
        "num_key_value_heads": language.num_key_value_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": language.tie_word_embeddings,
        "torch_dtype": "float32",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": padded_vocabulary_size(tokenizer),
    }


def generation_config(tokenizer: Tokenizer, sampling: dict[str, Any]) -> dict[str, Any]:
    """generation_config.json with the published keys."""
    end_of_text = tokenizer.token_to_id("<|endoftext|>")
    return {
        "bos_token_id": end_of_text,
        "do_sample": True,
        "eos_token_id": [tokenizer.token_to_id("<|im_end|>"), end_of_text],
        "pad_token_id": end_of_text,
        **sampling,
    }


def preprocessor_config() -> dict[str, Any]:
    """preprocessor_config.json with the published values."""
    return {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }


def new_model(directory: Path, model_class: type[PreTrainedModel], seed: int) -> PreTrainedModel:
    """A model with random weights, shaped by the config.json in `directory` alone."""
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(directory)
    return model_class._from_config(config, dtype=torch.float32)


def start_vl_donor(
    directory: Path, num_base_tokens: int, vision: VisionTowerSizes, language: LanguageSizes, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """Writes everything but the weights of a vision donor and returns the model, untrained."""
    tokenizer = build_tokenizer(num_base_tokens, qwen3=False)
    save_tokenizer(tokenizer, directory, VL_CHAT_TEMPLATE)
    write_json_atomically(directory / "chat_template.json", {"chat_template": VL_CHAT_TEMPLATE})
    write_json_atomically(directory / "preprocessor_config.json", preprocessor_config())
    write_json_atomically(directory / "config.json", vl_config(tokenizer, vision, language))
    sampling = {"repetition_penalty": 1.05, "temperature": 0.000001, "transformers_version": "4.49.0"}
    write_json_atomically(directory / "generation_config.json", generation_config(tokenizer, sampling))
    return new_model(directory, Qwen2_5_VLForConditionalGeneration, seed)


def start_llm_donor(directory: Path, num_base_tokens: int, language: Qwen3Sizes, seed: int) -> Qwen3ForCausalLM:
    """Writes everything but the weights of a language donor and returns the model, untrained."""
    tokenizer = build_tokenizer(num_base_tokens, qwen3=True)
    save_tokenizer(tokenizer, directory, QWEN3_CHAT_TEMPLATE)
    write_json_atomically(directory / "config.json", llm_config(tokenizer, language))
    sampling = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "transformers_version": "4.51.0"}
    write_json_atomically(directory / "generation_config.json", generation_config(tokenizer, sampling))
    return new_model(directory, Qwen3ForCausalLM, seed)


def save_weights(model: PreTrainedModel, directory: Path) -> None:
    """Writes the weights in shards with an index; the other files stay as `start_…_donor` wrote them."""
    for path in directory.glob("*.safetensors"):  # never written into: a graft may hold a link to it
        path.unlink()
    kept = {name: (directory / name).read_bytes() for name in ("config.json", "generation_config.json")}
    model.save_pretrained(directory, max_shard_size=MAX_SHARD_BYTES)
    for name, content in kept.items():
        (directory / name).write_bytes(content)
    for path in directory.iterdir():
        path.chmod(0o644)
