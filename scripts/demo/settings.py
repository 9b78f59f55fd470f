"""The section `demo` of the configuration: the demo's pictures, and the sizes and trainings of its two donors."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DigitsSettings:
    """The pictures: their size, how many are held back, and how far the copies for training are moved."""

    size_px: int
    num_dev: int
    num_test: int
    num_copies: int
    max_shift: float
    max_rotation_degrees: float
    max_scale_change: float
    seed: int


@dataclass(frozen=True)
class VisionTowerSizes:
    """Keys of Qwen2.5-VL's vision_config."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int


@dataclass(frozen=True)
class LanguageSizes:
    """Keys that Qwen2.5-VL's and Qwen3's config.json share."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int


@dataclass(frozen=True)
class Qwen3Sizes(LanguageSizes):
    """With the keys that Qwen3's has beside them."""

    head_dim: int
    initializer_range: float
    tie_word_embeddings: bool


@dataclass(frozen=True)
class VisionDonorSettings:
    """The vision donor and its training on the digits; below `min_dev_accuracy` it is refused."""

    num_base_tokens: int
    picture_px: int
    vision: VisionTowerSizes
    language: LanguageSizes
    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    max_rotation_degrees: float
    max_scale_change: float
    max_shift: float
    min_dev_accuracy: float


@dataclass(frozen=True)
class LanguageDonorSettings:
    """The language donor and its training on questions in words; below `min_text_accuracy` it is refused."""

    num_base_tokens: int
    language: Qwen3Sizes
    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    adam_beta2: float
    noise: float
    dropout: float
    num_curriculum_steps: int
    num_steps_per_naming: int
    nums_picture_tokens: list[int]
    num_gate_picture_tokens: int
    ending_weight: float
    min_text_accuracy: float


@dataclass(frozen=True)
class DemoSettings:
    """The whole section."""

    digits: DigitsSettings
    vision_donor: VisionDonorSettings
    language_donor: LanguageDonorSettings
