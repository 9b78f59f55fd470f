"""Tiny random donors in exactly the hubs' file formats, written with numpy alone: no torch, no transformers.

Tests of the graft's files need donors in a few milliseconds and in every style that is published: flat or nested
config.json, legacy or new tensor names, tied or untied, one or several shards. Names and shapes are written out here
once more, not taken from the code under test.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
FIRST_SPECIAL_ID = 256
TOKEN_IDS = {token: FIRST_SPECIAL_ID + number for number, token in enumerate(SPECIAL_TOKENS)}

SAFETENSORS_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}

PICTURE_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Arrays = dict[str, np.ndarray]


def to_bytes(values: np.ndarray, dtype: str) -> bytes:
    """float32 values as the bytes of `dtype`; bfloat16 by cutting off the lower half."""
    if dtype == "bfloat16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"float16": "<f2", "float32": "<f4"}[dtype]).tobytes()


def write_safetensors(path: Path, tensors: Arrays, dtype: str) -> None:
    """One safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs, position = [], 0
    for name, values in tensors.items():
        blob = to_bytes(values, dtype)
        end = position + len(blob)
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[dtype],
            "shape": list(values.shape),
            "data_offsets": [position, end],
        }
        blobs.append(blob)
        position = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_weights(directory: Path, tensors: Arrays, dtype: str, num_shards: int) -> None:
    """model.safetensors, or several shards and their index."""
    if num_shards == 1:
        write_safetensors(directory / "model.safetensors", tensors, dtype)
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(num_shards):
        file_name = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        shard_names = names[shard * len(names) // num_shards : (shard + 1) * len(names) // num_shards]
        write_safetensors(directory / file_name, {name: tensors[name] for name in shard_names}, dtype)
        weight_map |= dict.fromkeys(shard_names, file_name)
    total_size = sum(len(to_bytes(values, dtype)) for values in tensors.values())
    write_json(
        directory / "model.safetensors.index.json",
        {"metadata": {"total_size": total_size}, "weight_map": weight_map},
    )


def write_json(path: Path, value: Any) -> None:
    """Indented JSON."""
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def edit_json(path: Path, **changes: Any) -> None:
    """Changes top-level keys of a JSON file; None deletes the key."""
    values = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        values.pop(key, None)
        if value is not None:
            values[key] = value
    write_json(path, values)


def language_arrays(config: dict[str, Any], rng: np.random.Generator, qk_norm: bool, qkv_bias: bool) -> Arrays:
    """A language model's weights, from the keys of its (flat) configuration."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    q_size, kv_size = heads * head_dim, config["num_key_value_heads"] * head_dim

    def matrix(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1)

    def norm(size: int) -> np.ndarray:
        return 1 + rng.standard_normal(size, dtype=np.float32) * np.float32(0.3)

    arrays: Arrays = {}
    if not config["tie_word_embeddings"]:
        arrays["lm_head.weight"] = matrix(config["vocab_size"], hidden)
    arrays["model.embed_tokens.weight"] = matrix(config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        arrays[f"{prefix}.input_layernorm.weight"] = norm(hidden)
        arrays[f"{prefix}.mlp.down_proj.weight"] = matrix(hidden, inner)
        arrays[f"{prefix}.mlp.gate_proj.weight"] = matrix(inner, hidden)
        arrays[f"{prefix}.mlp.up_proj.weight"] = matrix(inner, hidden)
        arrays[f"{prefix}.post_attention_layernorm.weight"] = norm(hidden)
        if qk_norm:
            arrays[f"{prefix}.self_attn.k_norm.weight"] = norm(head_dim)
            arrays[f"{prefix}.self_attn.q_norm.weight"] = norm(head_dim)
        for letter, size in (("q", q_size), ("k", kv_size), ("v", kv_size)):
            arrays[f"{prefix}.self_attn.{letter}_proj.weight"] = matrix(size, hidden)
            if qkv_bias:
                arrays[f"{prefix}.self_attn.{letter}_proj.bias"] = matrix(size)
        arrays[f"{prefix}.self_attn.o_proj.weight"] = matrix(hidden, q_size)
    arrays["model.norm.weight"] = norm(hidden)
    return arrays


def vision_arrays(config: dict[str, Any], rng: np.random.Generator) -> Arrays:
    """A vision tower's weights, from vision_config."""
    hidden, inner, out = config["hidden_size"], config["intermediate_size"], config["out_hidden_size"]
    merged = hidden * config["spatial_merge_size"] ** 2
    patch = (config["temporal_patch_size"], config["patch_size"], config["patch_size"])

    def matrix(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1)

    def norm(size: int) -> np.ndarray:
        return 1 + rng.standard_normal(size, dtype=np.float32) * np.float32(0.3)

    arrays: Arrays = {"visual.patch_embed.proj.weight": matrix(hidden, 3, *patch)}
    for block in range(config["depth"]):
        prefix = f"visual.blocks.{block}"
        arrays[f"{prefix}.attn.proj.weight"] = matrix(hidden, hidden)
        arrays[f"{prefix}.attn.proj.bias"] = matrix(hidden)
        arrays[f"{prefix}.attn.qkv.weight"] = matrix(3 * hidden, hidden)
        arrays[f"{prefix}.attn.qkv.bias"] = matrix(3 * hidden)
        arrays[f"{prefix}.mlp.gate_proj.weight"] = matrix(inner, hidden)
        arrays[f"{prefix}.mlp.gate_proj.bias"] = matrix(inner)
        arrays[f"{prefix}.mlp.up_proj.weight"] = matrix(inner, hidden)
        arrays[f"{prefix}.mlp.up_proj.bias"] = matrix(inner)
        arrays[f"{prefix}.mlp.down_proj.weight"] = matrix(hidden, inner)
        arrays[f"{prefix}.mlp.down_proj.bias"] = matrix(hidden)
        arrays[f"{prefix}.norm1.weight"] = norm(hidden)
        arrays[f"{prefix}.norm2.weight"] = norm(hidden)
    arrays["visual.merger.ln_q.weight"] = norm(hidden)
    arrays["visual.merger.mlp.0.weight"] = matrix(merged, merged)
    arrays["visual.merger.mlp.0.bias"] = matrix(merged)
    arrays["visual.merger.mlp.2.weight"] = matrix(out, merged)
    arrays["visual.merger.mlp.2.bias"] = matrix(out)
    return arrays


def new_layout(name: str) -> str:
    """A tensor's name as transformers holds it in memory since 4.52."""
    if name.startswith("visual."):
        return "model." + name
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def byte_symbols() -> list[str]:
    """The 256 printable symbols that byte-level BPE writes for bytes, in the order of bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [symbols[byte] for byte in range(256)]


def write_tokenizer(directory: Path, template: str) -> None:
    """A byte-level tokenizer without merges and with Qwen's special tokens, as the files that Qwen publishes."""
    vocabulary = {symbol: number for number, symbol in enumerate(byte_symbols())}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    pre_tokenizer = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    write_json(
        directory / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": number, "content": token, **flags} for token, number in TOKEN_IDS.items()],
            "normalizer": None,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": [],
            },
        },
    )  # fmt: skip
    write_json(directory / "vocab.json", vocabulary)
    (directory / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    write_json(
        directory / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(number): {"content": token, **flags} for token, number in TOKEN_IDS.items()},
            "additional_special_tokens": SPECIAL_TOKENS[1:],
            "bos_token": None,
            "chat_template": template,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )


def nested_config(flat: dict[str, Any], text_model_type: str | None) -> dict[str, Any]:
    """A flat configuration in the style of transformers 5."""
    text = dict(flat)
    outer = {key: text.pop(key) for key in ("architectures", "model_type", "tie_word_embeddings")}
    outer["dtype"] = text.pop("torch_dtype")
    rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta")}
    scaling = text.pop("rope_scaling")
    if text_model_type is None:  # a language model: flat in transformers 5 as well
        return {**outer, **text, "rope_parameters": rope}
    for key in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "vision_config"):
        outer[key] = text.pop(key)
    outer["vision_config"] = {**outer["vision_config"], "model_type": "qwen2_5_vl_vision"}
    rope["mrope_section"] = scaling["mrope_section"]
    return {**outer, "text_config": {**text, "model_type": text_model_type, "rope_parameters": rope}}


def write_tiny_donors(
    directory: Path,
    *,
    dtype: str = "bfloat16",
    style: str = "flat",
    layout: str = "legacy",
    tied: bool = False,
    num_shards: int = 3,
    seed: int = 0,
    vl: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    llm: dict[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Writes a Qwen2.5-VL to directory/vl and a Qwen3 to directory/llm; returns both directories.

    `vl`, `vision` and `llm` change keys of the (flat) configurations before the weights are made from them.
    """
    common = {
        "attention_dropout": 0.0,
        "bos_token_id": TOKEN_IDS["<|endoftext|>"],
        "eos_token_id": TOKEN_IDS["<|im_end|>"],
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "torch_dtype": dtype,
        "use_cache": True,
        "use_sliding_window": False,
    }
    vision_config = {
        "depth": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_heads": 2,
        "in_chans": 3,
        "out_hidden_size": 48,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
        **(vision or {}),
    }
    vl_config: dict[str, Any] = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        **common,
        "vision_start_token_id": TOKEN_IDS["<|vision_start|>"],
        "vision_end_token_id": TOKEN_IDS["<|vision_end|>"],
        "vision_token_id": TOKEN_IDS["<|vision_pad|>"],
        "image_token_id": TOKEN_IDS["<|image_pad|>"],
        "video_token_id": TOKEN_IDS["<|video_pad|>"],
        "hidden_size": 48,
        "intermediate_size": 64,
        "max_position_embeddings": 128000,
        "max_window_layers": 1,
        "model_type": "qwen2_5_vl",
        "num_hidden_layers": 1,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "vision_config": vision_config,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vocab_size": 304,
        **(vl or {}),
    }
    llm_config: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        **common,
        "head_dim": 16,
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": 40960,
        "max_window_layers": 2,
        "model_type": "qwen3",
        "num_hidden_layers": 2,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "vocab_size": 288,
        **(llm or {}),
    }
    vl_dir, llm_dir = directory / "vl", directory / "llm"
    for donor_dir in (vl_dir, llm_dir):
        donor_dir.mkdir(parents=True)
    rng = np.random.default_rng(seed)

    vl_arrays = vision_arrays(vision_config, rng) | language_arrays(vl_config, rng, qk_norm=False, qkv_bias=True)
    if layout == "new":
        vl_arrays = {new_layout(name): values for name, values in vl_arrays.items()}
    write_weights(vl_dir, vl_arrays, vl_config["torch_dtype"], num_shards)
    write_tokenizer(vl_dir, TEXT_TEMPLATE)
    write_json(vl_dir / "config.json", nested_config(vl_config, "qwen2_5_vl_text") if style == "nested" else vl_config)
    write_json(vl_dir / "chat_template.json", {"chat_template": PICTURE_TEMPLATE})
    write_json(
        vl_dir / "preprocessor_config.json",
        {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        },
    )

    llm_arrays = language_arrays(llm_config, rng, qk_norm=True, qkv_bias=False)
    write_weights(llm_dir, llm_arrays, llm_config["torch_dtype"], num_shards)
    write_tokenizer(llm_dir, TEXT_TEMPLATE)
    write_json(llm_dir / "config.json", nested_config(llm_config, None) if style == "nested" else llm_config)
    write_json(
        llm_dir / "generation_config.json",
        {"bos_token_id": llm_config["bos_token_id"], "eos_token_id": [llm_config["eos_token_id"]], "do_sample": False},
    )
    return vl_dir, llm_dir
