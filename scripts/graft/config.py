"""The grafted model's config.json, derived from those of both donors, and what a pair of donors must satisfy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.graft.donor_configs import (
    PICTURE_TOKENS,
    VISION_DEFAULTS,
    ConfigReader,
    LanguageShape,
    check_vision_windows,
    dtype_name,
    language_shape,
    rope_section,
    text_section,
    vision_shape,
)
from scripts.graft.own_code import AUTO_MAP, CODE_NAME, without_code
from scripts.graft.settings import GraftSettings


def check_language_donor(llm: ConfigReader) -> None:
    """Refuses a language donor whose attention the grafted decoder does not compute exactly."""
    if llm.boolean("attention_bias", default=False):
        raise UserError(
            f"{llm.where('attention_bias')} is true; expected false: neither architecture has a bias on o_proj; "
            "take a language donor without attention biases (all published Qwen3 are)"
        )
    layer_types = llm.values.get("layer_types")
    kinds = layer_types if isinstance(layer_types, list) else []
    if llm.boolean("use_sliding_window", default=False) or any(kind != "full_attention" for kind in kinds):
        raise UserError(
            f"{llm.where('use_sliding_window')}: sliding-window layers found; expected full attention in every layer: "
            "a picture's tokens would fall out of the window; take a language donor without a sliding window"
        )
    if layer_types is not None and len(kinds) != llm.integer("num_hidden_layers"):
        raise UserError(
            f"{llm.where('layer_types')} is {layer_types!s:.100}; expected a list with an entry for each of num_hidden_layers; "
            "fetch this donor's config.json again"
        )
    rope = rope_section(llm)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise UserError(
            f"{llm.path}: rope scaling of type {rope_type!r} found; expected none: the sections of m-RoPE are defined "
            "on unscaled frequencies, and the published vision donors never saw others; remove the scaling from a copy "
            "of the donor's config.json (its weights are trained without it), and scale after training if you must"
        )


def mrope_section_for(vl: ConfigReader, head_dim: int, llm_path: Path) -> list[int]:
    """The vision donor's m-RoPE sections, which must divide exactly the language donor's head."""
    text = text_section(vl)
    section = rope_section(text).get("mrope_section")
    if (
        not isinstance(section, list)
        or len(section) != 3
        or not all(type(part) is int and part > 0 for part in section)
    ):
        raise UserError(
            f"{text.where('rope_scaling.mrope_section')} (or rope_parameters.mrope_section) is {section!r}; expected "
            "three positive whole numbers; fetch this donor's config.json again"
        )
    if 2 * sum(section) != head_dim:
        raise UserError(
            f"{llm_path}: head_dim is {head_dim}; expected {2 * sum(section)}, twice the sum of the vision donor's "
            f"mrope_section {section}: these donors do not fit; take a language donor with head_dim {2 * sum(section)}"
        )
    return section


def check_stock_head_dim(shape: LanguageShape, llm_path: Path) -> None:
    """Qwen2.5-VL's own classes have no head_dim: it is hidden_size / num_attention_heads there."""
    if shape.head_dim * shape.num_heads != shape.hidden_size:
        raise UserError(
            f"{llm_path}: head_dim is {shape.head_dim}; graft.architecture: qwen2_5_vl expects hidden_size / "
            f"num_attention_heads = {shape.hidden_size} / {shape.num_heads}; set graft.architecture: qwen3, which has "
            "a head size of its own, or take another language donor (of the published ones 1.7B, 8B and 14B fit)"
        )


@dataclass(frozen=True)
class AddedTokens:
    """The added tokens of a donor's tokenizer with their ids; None where no file of the directory lists them."""

    role: str
    directory: Path
    ids: dict[str, int] | None


def picture_token_ids(vl: ConfigReader, vocab_size: int, tokenizers: Sequence[AddedTokens]) -> dict[str, int]:
    """The ids of the picture tokens, after checking that both donors' tokenizers mean the same tokens by them."""
    ids: dict[str, int] = {}
    for key, token in PICTURE_TOKENS.items():
        token_id = vl.values.get(key, text_section(vl).values.get(key))
        if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
            raise UserError(
                f"{vl.where(key)} is {token_id!r}; expected the id of {token}; fetch this donor's config.json again"
            )
        if token_id >= vocab_size:
            raise UserError(
                f"{vl.where(key)} is {token_id}, beyond the language donor's vocabulary of {vocab_size}; these donors "
                "do not fit; take a language donor whose vocabulary has the picture tokens (all published Qwen3 do)"
            )
        for tokenizer in tokenizers:
            if tokenizer.ids is None or tokenizer.ids.get(token) == token_id:
                continue
            found = f"has it as {tokenizer.ids[token]}" if token in tokenizer.ids else "does not have it"
            raise UserError(
                f"{vl.where(key)} is {token_id}, meant as {token}, but the {tokenizer.role}'s tokenizer in "
                f"{tokenizer.directory} {found}; "
                "expected the same id in both donors, since the language donor's tokenizer travels with the graft; "
                "take donors of one tokenizer family"
            )
        ids[key] = token_id
    return ids


def text_token_ids(llm: ConfigReader, vocab_size: int) -> dict[str, Any]:
    """bos, eos and pad as the language donor has them; explicit nulls, as the classes' defaults would be others."""
    ids: dict[str, Any] = {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = llm.values.get(key)
        for token_id in value if isinstance(value, list) else [] if value is None else [value]:
            if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < vocab_size:
                raise UserError(
                    f"{llm.where(key)} is {value!r}; expected ids below the vocabulary size {vocab_size}; fetch this "
                    "donor's config.json again"
                )
        ids[key] = value
    return ids


def language_values(llm: ConfigReader, shape: LanguageShape) -> dict[str, Any]:
    """The language model's keys that both architectures have."""
    return {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "hidden_act": llm.activation("hidden_act"),
        "max_position_embeddings": llm.integer("max_position_embeddings"),
        "max_window_layers": shape.num_layers,
        "initializer_range": llm.number("initializer_range", 0.02),
        "rms_norm_eps": rms_norm_eps_of(llm),
        "attention_dropout": llm.share("attention_dropout", 0.0),
        "use_cache": llm.boolean("use_cache", default=True),
        "use_sliding_window": False,
        "sliding_window": None,
        **text_token_ids(llm, shape.vocab_size),
    }


def rope_theta_of(llm: ConfigReader) -> float:
    """`rope_theta` of the language donor, at the top level (transformers 4) or in its section (transformers 5)."""
    section = ConfigReader(rope_section(llm), llm.path, "rope_parameters.")
    if "rope_theta" not in llm.values:
        return section.number("rope_theta")
    theta = llm.number("rope_theta")
    if "rope_theta" in section.values and (other := section.number("rope_theta")) != theta:
        raise UserError(
            f"{llm.where('rope_theta')} is {theta:g}, rope_parameters.rope_theta is {other:g}; expected one value; fetch this "
            "donor's config.json again"
        )
    return theta


def rms_norm_eps_of(llm: ConfigReader) -> float:
    """`rms_norm_eps` of the language donor, which is small beside the square of any activation."""
    if (eps := llm.number("rms_norm_eps")) >= 1:
        raise UserError(
            f"{llm.where('rms_norm_eps')} is {eps:g}; expected less than 1; fetch this donor's config.json again"
        )
    return eps


def written_by(llm: ConfigReader) -> dict[str, Any]:
    """`transformers_version`, where the language donor has it.

    Without it transformers takes the tokenizer beside it for an early Mistral's and warns that it tokenizes wrongly.
    """
    version = llm.values.get("transformers_version")
    if not (version is None or isinstance(version, str)):
        raise UserError(
            f"{llm.where('transformers_version')} is {version!r:.100}; expected a text; fetch this donor's config.json again"
        )
    return {} if version is None else {"transformers_version": version}


@dataclass(frozen=True)
class DerivedParts:
    """What both architectures' config.json are made of."""

    llm: ConfigReader
    vision: ConfigReader
    shape: LanguageShape
    mrope_section: list[int]
    picture_ids: dict[str, int]
    language: dict[str, Any]
    rope_theta: float


def stock_config(parts: DerivedParts) -> dict[str, Any]:
    """For `architecture: qwen2_5_vl`: flat, with published keys alone."""
    shape = parts.shape
    vision = {k: v for k, v in parts.vision.values.items() if k not in ("model_type", "dtype", "torch_dtype")}
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **written_by(parts.llm),
        **parts.language,
        "rope_theta": parts.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": parts.mrope_section},
        "tie_word_embeddings": shape.tie_word_embeddings,
        "torch_dtype": dtype_name(parts.llm),
        **parts.picture_ids,
        "vision_config": {**VISION_DEFAULTS, **vision, "out_hidden_size": shape.hidden_size},
    }


def qwen3_config(parts: DerivedParts) -> dict[str, Any]:
    """For `architecture: qwen3`: nested, with the classes of the model code that travels with it."""
    shape, dtype = parts.shape, dtype_name(parts.llm)
    vision = {k: v for k, v in parts.vision.values.items() if k not in ("dtype", "torch_dtype")}
    return {
        "architectures": ["Qwen2_5_VLQwen3ForConditionalGeneration"],
        "auto_map": AUTO_MAP,
        "model_type": CODE_NAME,
        **written_by(parts.llm),
        "dtype": dtype,
        "tie_word_embeddings": shape.tie_word_embeddings,
        **parts.picture_ids,
        "text_config": {
            "model_type": f"{CODE_NAME}_text",
            **parts.language,
            "head_dim": shape.head_dim,
            "attention_bias": False,
            "layer_types": ["full_attention"] * shape.num_layers,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": parts.rope_theta,
                "mrope_section": parts.mrope_section,
            },
            "tie_word_embeddings": shape.tie_word_embeddings,
            "dtype": dtype,
        },
        "vision_config": {
            **VISION_DEFAULTS,
            **vision,
            "model_type": "qwen2_5_vl_vision",
            "in_channels": vision_shape(parts.vision).in_channels,
            "out_hidden_size": shape.hidden_size,
        },
    }


def derive_config(
    vl: ConfigReader, llm: ConfigReader, settings: GraftSettings, tokenizers: Sequence[AddedTokens] = ()
) -> dict[str, Any]:
    """The grafted model's config.json; raises UserError where the donors do not fit each other or the architecture."""
    check_language_donor(llm)
    dtype_name(vl)  # raises UserError where it is not one that the graft can write
    llm.integer("head_dim")  # Qwen3's class would otherwise assume 128
    shape = language_shape(llm, llm.boolean("tie_word_embeddings"))
    mrope_section = mrope_section_for(vl, shape.head_dim, llm.path)
    section = vl.child("vision_config")
    vision = ConfigReader(without_code(section.values), section.path, section.section)
    check_vision_windows(vision, vision_shape(vision))
    parts = DerivedParts(
        llm=llm,
        vision=vision,
        shape=shape,
        mrope_section=mrope_section,
        picture_ids=picture_token_ids(vl, shape.vocab_size, tokenizers),
        language=language_values(llm, shape),
        rope_theta=rope_theta_of(llm),
    )
    if settings.architecture == "qwen2_5_vl":
        check_stock_head_dim(shape, llm.path)
        return stock_config(parts)
    return qwen3_config(parts)
