"""What a graft needs from its donors, read and checked before a byte is written: the plan and the checksums."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.input_files import read_section
from scripts.donors.safetensors_files import read_checkpoint, read_shard
from scripts.graft.aligner_init import constant_slabs, fresh_input_moment, kept_input_moment, mlp_2_std, normal_slabs
from scripts.graft.donor_configs import (
    SAFETENSORS_DTYPES,
    ConfigReader,
    dtype_name,
    language_shape,
    text_section,
    tied,
    vision_shape,
)
from scripts.graft.donor_tensors import DonorTensors, by_published_name, check_tensors
from scripts.graft.ledger import LedgerRow, shape_text
from scripts.graft.plan import PlannedTensor, plan_graft
from scripts.graft.settings import GraftSettings
from scripts.graft.shapes import Shapes, language_shapes, vision_shapes
from scripts.graft.shard_layout import OutputTensor, Shard
from scripts.graft.shard_writer import SLAB_BYTES


@dataclass(frozen=True)
class DonorConfigs:
    """Both donors' config.json, and the graft's that is derived from them."""

    vl: ConfigReader
    llm: ConfigReader
    derived: Mapping[str, Any]


def check_config(config_path: Path, derived: Mapping[str, Any]) -> None:
    """Raises UserError where config.json is not what the donors and settings imply."""
    config = read_section(config_path)
    found, expected = flatten(config), flatten(derived)
    for key in [*expected, *found]:
        if found.get(key) != expected.get(key):
            raise UserError(
                f"{config_path}: {key} is {found.get(key)!r}; the donors and settings imply {expected.get(key)!r}; "
                "delete this file and run derive_config.py again"
            )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def check_output_dir(output_dir: Path, donor_dirs: Iterable[Path]) -> None:
    """The result must not lie in a donor: donors are never modified."""
    # Not resolve(), which raises RuntimeError at a link to itself.
    real_path = Path(os.path.realpath(output_dir))
    for donor_dir in donor_dirs:
        if real_path.is_relative_to(os.path.realpath(donor_dir)):
            raise UserError(
                f"{output_dir}: lies in the donor {donor_dir}, which must stay as it is; choose another results directory"
            )


def check_dtype(llm: DonorTensors, config: ConfigReader) -> None:
    """Raises UserError where a weight would be cast on loading: the graft's dtype is that of the language donor's config.json."""
    stated = dtype_name(config)
    for tensor in llm.tensors.values():
        if tensor.dtype != SAFETENSORS_DTYPES[stated]:
            raise UserError(
                f"{tensor.path}: tensor {tensor.name} is {tensor.dtype}; {config.path} says {stated}, to which each loader "
                "would cast it; correct torch_dtype in a copy of this donor, or take one whose weights are of that type"
            )


def read_vision_tensors(directory: Path, config: ConfigReader) -> DonorTensors:
    """The headers of the vision donor's files; raises UserError where they do not go with its config.json."""
    shapes = vision_shapes(vision_shape(config.child("vision_config")))
    shapes |= language_shapes(language_shape(text_section(config), tied(config)), qk_norm=False, qkv_bias=True)
    donor = DonorTensors("vl", by_published_name(read_checkpoint(directory)), shapes, str(config.path))
    check_tensors(donor)
    return donor


def read_language_tensors(directory: Path, config: ConfigReader) -> DonorTensors:
    """The same of the language donor. A tied model's head may have been saved beside the embedding it repeats."""
    shape = language_shape(config, tied(config))
    shapes = language_shapes(shape, qk_norm=True, qkv_bias=False)
    donor = DonorTensors("llm", read_checkpoint(directory), shapes, str(config.path))
    head: Shapes = {"lm_head.weight": (shape.vocab_size, shape.hidden_size)} if shape.tie_word_embeddings else {}
    check_tensors(donor, optional=head)
    check_dtype(donor, config)
    return donor


def output_shapes(configs: DonorConfigs, settings: GraftSettings) -> Shapes:
    """The tensors of the result, as the derived config.json implies them."""
    derived, is_qwen3 = configs.derived, settings.architecture == "qwen3"
    text = text_section(ConfigReader(derived, Path("config.json")))
    vision = replace(
        vision_shape(configs.vl.child("vision_config")), out_hidden_size=derived["vision_config"]["out_hidden_size"]
    )
    return vision_shapes(vision) | language_shapes(
        language_shape(text, derived["tie_word_embeddings"]), qk_norm=is_qwen3, qkv_bias=not is_qwen3
    )


def make_plan(
    vl_dir: Path, llm_dir: Path, configs: DonorConfigs, settings: GraftSettings, refit_path: Path | None
) -> list[PlannedTensor]:
    """Reads the headers of both donors, checks every tensor against its config.json, and plans the result."""
    vl, llm = read_vision_tensors(vl_dir, configs.vl), read_language_tensors(llm_dir, configs.llm)
    if settings.aligner == "keep":
        names = ("ln_q.weight", "mlp.0.weight", "mlp.0.bias")
        moment = kept_input_moment(*(vl.tensors[f"visual.merger.{name}"] for name in names))
    else:
        moment = fresh_input_moment(vision_shape(configs.vl.child("vision_config")).merged_size)
    std = mlp_2_std(llm.tensors["model.embed_tokens.weight"], moment)
    refit = read_shard(refit_path) if refit_path else {}
    return plan_graft(vl, llm, output_shapes(configs, settings), settings, std, refit)


def output_tensor(entry: PlannedTensor, seed: int) -> OutputTensor:
    """A tensor of the result, with the function that makes its bytes where it is new."""
    num_values = math.prod(entry.shape)
    make_slabs = None
    if entry.std is not None:
        make_slabs = partial(normal_slabs, entry.output_name, num_values, entry.std, entry.dtype, seed, SLAB_BYTES)
    elif entry.value is not None:
        make_slabs = partial(constant_slabs, num_values, entry.value, entry.dtype, SLAB_BYTES)
    return OutputTensor(entry.output_name, entry.dtype, entry.shape, entry.source, make_slabs)


def donor_digest(entry: PlannedTensor, digests: Mapping[str, Mapping[str, str]]) -> str:
    """sha256 of a donor's tensor; raises UserError where its manifest lacks it."""
    if digest := digests[entry.donor].get(entry.name):
        return digest
    where = entry.source.path if entry.source else entry.name
    raise UserError(
        f"{where}: tensor {entry.name} is not in the manifest of its donor; expected its sha256 there; remove the "
        "manifest (resources/donors/*.json), so that it is made again"
    )


def check_tied_head(plan: Sequence[PlannedTensor], digests: Mapping[str, str]) -> None:
    """A head that is dropped because it is tied must really repeat the embedding; `digests` are the language donor's."""
    heads = [entry for entry in plan if (entry.donor, entry.name, entry.policy) == ("llm", "lm_head.weight", "dropped")]
    for head in heads:
        if head.source is None or digests.get(head.name) == digests.get("model.embed_tokens.weight"):
            continue
        raise UserError(
            f"{head.source.path}: tensor lm_head.weight differs from model.embed_tokens.weight, though the donor's "
            "config.json says tie_word_embeddings: true; expected equal bytes; set it to false in a copy of the donor"
        )


def ledger_rows(plan: Sequence[PlannedTensor], digests: Sequence[str], shards: Sequence[Shard]) -> list[LedgerRow]:
    """The ledger's rows, in the order of the plan; `digests` are the sha256 of its tensors."""
    output_files = {name: shard.file_name for shard in shards for name in shard.offsets}
    return [
        LedgerRow(
            name=entry.name,
            donor=entry.donor,
            policy=entry.policy,
            output_name=entry.output_name,
            dtype=entry.dtype,
            shape=shape_text(entry.shape),
            bytes=entry.num_bytes,
            sha256=digest,
            donor_file=entry.source.path.name if entry.source else "",
            output_file=output_files.get(entry.output_name, ""),
            reason=entry.reason,
        )
        for entry, digest in zip(plan, digests, strict=True)
    ]
