"""Reads the donors' config.json files, in either style of the hubs.

transformers 4 publishes a flat file (`rope_theta`, `rope_scaling: {type: mrope, mrope_section}`, `torch_dtype`; for
Qwen2.5-VL the language model's keys at the top level), transformers 5 a nested one (`text_config`, `rope_parameters`,
`dtype`). Both are read into the same few numbers; a key that is missing or makes no sense is an error that names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from scripts.common.errors import UserError
from scripts.common.input_files import read_section

CONFIG_NAME = "config.json"

# dtype in config.json -> dtype in a safetensors header; the graft copies and initialises these three.
SAFETENSORS_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}

# Keys of config.json that hold the ids of picture tokens -> the tokens themselves, as Qwen2.5-VL's processor
# (image and video pad) and its chat template write them.
PICTURE_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}

# What a vision_config leaves out has these values: the defaults of transformers' Qwen2_5_VLVisionConfig, equal in 4.49 and
# 5.19. Qwen2.5-VL-32B-Instruct, saved again by transformers 4.49, leaves them out.
VISION_DEFAULTS = {
    "depth": 32,
    "hidden_act": "silu",
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_MISSING = object()
_FETCH_AGAIN = "fetch this donor's config.json again"


# The names that transformers 5 knows (transformers/activations.py: ACT2CLS).
ACTIVATIONS = (
    "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh",
    "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu", "relu2", "relu6", "sigmoid", "silu",
    "sqrtsoftplus", "swish", "tanh", "xielu",
)  # fmt: skip

# Above every model's; a damaged number would otherwise fill the memory with names of tensors.
MAX_SIZE = 2**31 - 1
MAX_NUM_LAYERS = 10_000


def is_integer(value: Any) -> bool:
    """A whole number; JSON's true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """A number, whole or not; JSON's true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class LanguageShape:
    """What determines the names and shapes of a language model's tensors."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    tie_word_embeddings: bool


@dataclass(frozen=True)
class VisionShape:
    """What determines the names and shapes of Qwen2.5-VL's vision tower and of its merger (the aligner)."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    out_hidden_size: int

    @property
    def merged_size(self) -> int:
        """Width of the aligner's input: spatial_merge_size squared neighbouring patches, concatenated."""
        return self.hidden_size * self.spatial_merge_size**2


class ConfigReader:
    """One config.json, or a section of it, whose keys are checked as they are read."""

    def __init__(self, values: Mapping[str, Any], path: Path, section: str = "") -> None:
        self.values = values
        self.path = path
        self.section = section

    def where(self, key: str) -> str:
        """`path: section.key`, to begin a message with."""
        return f"{self.path}: {self.section}{key}"

    def get(self, key: str, default: Any = _MISSING) -> Any:
        """The value of `key`; without a default a missing key is an error."""
        value = self.values.get(key, default)
        if value is _MISSING:
            raise UserError(f"{self.where(key)} not found; the graft's configuration needs it; {_FETCH_AGAIN}")
        return value

    def integer(self, key: str, default: Any = _MISSING, most: int = MAX_SIZE) -> int:
        """A positive whole number up to `most`."""
        value = self.get(key, default)
        if not is_integer(value) or not 1 <= value <= most:
            raise UserError(
                f"{self.where(key)} is {value!r}; expected a positive whole number up to {most}; {_FETCH_AGAIN}"
            )
        return int(value)

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A positive number."""
        value = self.get(key, default)
        if not is_number(value) or value <= 0:
            raise UserError(f"{self.where(key)} is {value!r}; expected a positive number; {_FETCH_AGAIN}")
        return value

    def share(self, key: str, default: Any) -> float:
        """A number from 0 to below 1."""
        value = self.get(key, default)
        if not is_number(value) or not 0 <= value < 1:
            raise UserError(f"{self.where(key)} is {value!r}; expected a number from 0 to below 1; {_FETCH_AGAIN}")
        return value

    def activation(self, key: str) -> str:
        """The name of an activation that transformers knows."""
        value = self.get(key)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise UserError(f"{self.where(key)} is {value!r}; expected one of {', '.join(ACTIVATIONS)}; {_FETCH_AGAIN}")
        return value

    def boolean(self, key: str, default: Any = _MISSING) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise UserError(f"{self.where(key)} is {value!r}; expected true or false; {_FETCH_AGAIN}")
        return value

    def child(self, key: str) -> "ConfigReader":
        """The section under `key`."""
        value = self.get(key)
        if not isinstance(value, Mapping):
            raise UserError(f"{self.where(key)} is {value!r}; expected a section; {_FETCH_AGAIN}")
        return ConfigReader(value, self.path, f"{self.section}{key}.")


def read_config(directory: Path, expected_model_type: str, role: str) -> ConfigReader:
    """The config.json of a donor, after its model_type and the absence of quantisation have been checked."""
    path = directory / CONFIG_NAME
    values = read_section(path)
    config = ConfigReader(values, path)
    model_type = values.get("model_type")
    if model_type != expected_model_type:
        raise UserError(
            f"{path}: model_type is {model_type!r}; expected {expected_model_type!r} of the {role}; "
            f"check donors in the configuration"
        )
    if values.get("quantization_config") is not None:
        raise UserError(
            f"{path}: quantization_config found; the graft copies unquantised weights only; take the donor's "
            "bfloat16 original"
        )
    return config


def text_section(config: ConfigReader) -> ConfigReader:
    """The language model's keys: `text_config` where there is one, else the top level."""
    return config.child("text_config") if config.values.get("text_config") is not None else config


def rope_section(text: ConfigReader) -> Mapping[str, Any]:
    """`rope_parameters` (transformers 5) or `rope_scaling` (transformers 4), or nothing."""
    for key in ("rope_parameters", "rope_scaling"):
        value = text.values.get(key)
        if value is not None:
            if not isinstance(value, Mapping):
                raise UserError(f"{text.where(key)} is {value!r}; expected a section; {_FETCH_AGAIN}")
            return value
    return {}


def dtype_name(config: ConfigReader) -> str:
    """`dtype` (transformers 5) or `torch_dtype` (transformers 4), one that the graft can write."""
    sections = [config, text_section(config)]
    for section in sections:
        for key in ("dtype", "torch_dtype"):
            if (value := section.values.get(key)) is not None:
                if not isinstance(value, str) or value not in SAFETENSORS_DTYPES:
                    raise UserError(
                        f"{section.where(key)} is {value!r}; expected one of {', '.join(SAFETENSORS_DTYPES)}; take an "
                        "unquantised copy of this donor"
                    )
                return value
    raise UserError(f"{config.where('dtype')} (or torch_dtype) not found; add it or {_FETCH_AGAIN}")


def language_shape(text: ConfigReader, tie_word_embeddings: bool) -> LanguageShape:
    """Reads a language model's shape; head_dim is hidden_size / num_attention_heads where the file gives none."""
    hidden_size, num_heads = text.integer("hidden_size"), text.integer("num_attention_heads")
    num_kv_heads = text.integer("num_key_value_heads")
    if text.values.get("head_dim") is None and hidden_size % num_heads:
        raise UserError(
            f"{text.where('hidden_size')} is {hidden_size}, no multiple of num_attention_heads {num_heads}; "
            f"{_FETCH_AGAIN}"
        )
    if num_heads % num_kv_heads:
        raise UserError(
            f"{text.where('num_attention_heads')} is {num_heads}, no multiple of num_key_value_heads {num_kv_heads}; "
            f"{_FETCH_AGAIN}"
        )
    head_dim = text.values.get("head_dim")
    return LanguageShape(
        vocab_size=text.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=text.integer("intermediate_size"),
        num_layers=text.integer("num_hidden_layers", most=MAX_NUM_LAYERS),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=hidden_size // num_heads if head_dim is None else text.integer("head_dim"),
        tie_word_embeddings=tie_word_embeddings,
    )


def tied(config: ConfigReader) -> bool:
    """Whether the embeddings are tied; a nested file may have the key in text_config only (transformers before 5)."""
    if config.values.get("tie_word_embeddings"):
        return config.boolean("tie_word_embeddings")
    return text_section(config).boolean("tie_word_embeddings", default=config.get("tie_word_embeddings", False))


def vision_shape(vision: ConfigReader) -> VisionShape:
    """Reads the vision tower's shape; `in_chans` is the published spelling of in_channels, 3 the class's default."""
    vision = ConfigReader({**VISION_DEFAULTS, **vision.values}, vision.path, vision.section)
    hidden_size, num_heads = vision.integer("hidden_size"), vision.integer("num_heads")
    if hidden_size % num_heads:
        raise UserError(
            f"{vision.where('hidden_size')} is {hidden_size}; expected a multiple of num_heads {num_heads}; {_FETCH_AGAIN}"
        )
    return VisionShape(
        depth=vision.integer("depth", most=MAX_NUM_LAYERS),
        hidden_size=hidden_size,
        intermediate_size=vision.integer("intermediate_size"),
        num_heads=num_heads,
        in_channels=vision.integer("in_channels", default=vision.values.get("in_chans", 3)),
        patch_size=vision.integer("patch_size"),
        temporal_patch_size=vision.integer("temporal_patch_size"),
        spatial_merge_size=vision.integer("spatial_merge_size"),
        out_hidden_size=vision.integer("out_hidden_size"),
    )


def check_vision_windows(vision: ConfigReader, shape: VisionShape) -> None:
    """Raises UserError where what shapes no tensor, but steers the vision tower's attention, makes no sense."""
    vision = ConfigReader({**VISION_DEFAULTS, **vision.values}, vision.path, vision.section)
    vision.activation("hidden_act")
    for key in ("tokens_per_second", "initializer_range"):
        if vision.values.get(key) is not None:
            vision.number(key)
    smallest = shape.patch_size * shape.spatial_merge_size
    if (window_size := vision.integer("window_size")) < smallest:
        raise UserError(
            f"{vision.where('window_size')} is {window_size}; expected at least {smallest}, patch_size times "
            f"spatial_merge_size; {_FETCH_AGAIN}"
        )
    blocks = vision.get("fullatt_block_indexes")
    if not isinstance(blocks, list) or not all(is_integer(block) and 0 <= block < shape.depth for block in blocks):
        raise UserError(
            f"{vision.where('fullatt_block_indexes')} is {blocks!r}; expected numbers of the {shape.depth} blocks, from 0; "
            f"{_FETCH_AGAIN}"
        )


def read_vision_donor(directory: Path) -> ConfigReader:
    """The config.json of the vision donor, a Qwen2.5-VL."""
    return read_config(directory, "qwen2_5_vl", "vision donor")


def read_language_donor(directory: Path) -> ConfigReader:
    """The config.json of the language donor, a Qwen3 (dense)."""
    return read_config(directory, "qwen3", "language donor")
