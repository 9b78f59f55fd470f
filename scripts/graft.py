#!/usr/bin/env python3
"""Grafts a Qwen2.5-VL vision tower onto a Qwen3 language model: two checkpoints in, one loadable checkpoint out.

Why not load both models, copy and save, as the published recipe does: that needs both in memory, drops 72 q/k norms
without a word, and writes weights that no program can load for want of a tokenizer and a processor. Here bytes go from
file to file, each tensor of either donor is copied or dropped by a stated policy (graft/ledger.tsv has a row for each),
anything that is not planned is an error, and the directory is usable as it stands. docs/graft.md explains the rest.

The result appears as a whole: everything is written into a hidden directory beside its place, synced, and moved: weights
first, then their index (without which there is no checkpoint), the ledger last. Interrupted at any time, the same
command starts over.

By hand, from the repository root, after derive_config.py:

    .venv/bin/python scripts/graft.py --vl-dir resources/donors/VL --llm-dir resources/donors/LLM \
        --config results/NAME/graft/config.json --model-code-dir model/qwen2_5_vl_qwen3 --seed 0 \
        --settings '{"architecture": "qwen3", "aligner": "fresh", "calibration": "none", "max_shard_gb": 4}' \
        --output-dir results/NAME/graft
"""

import argparse
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

from derive_config import derive_config

from common.aligner_init import constant_slabs, fresh_input_moment, kept_input_moment, mlp_2_std, normal_slabs
from common.errors import UserError, run_program
from common.files import fsync_directory, read_json
from common.graft_plan import (
    Donor,
    PlannedTensor,
    by_published_name,
    check_tensors,
    language_shapes,
    plan_graft,
    vision_shapes,
)
from common.model_configs import (
    SAFETENSORS_DTYPES,
    ConfigReader,
    dtype_name,
    language_shape,
    read_language_donor,
    read_vision_donor,
    text_section,
    tied,
    vision_shape,
)
from common.safetensors_files import INDEX_NAME, SHARD_PATTERN, SINGLE_NAME, read_checkpoint
from common.safetensors_writer import (
    SLAB_BYTES,
    Shard,
    StreamedTensor,
    check_free_space,
    checkpoint_index,
    lay_out_shards,
    stream_tensors,
)
from common.travelling_files import TRAVELLING_PATTERNS, json_bytes, travelling_files

STAGING_NAME = ".graft.partial"
LEDGER_NAME = "ledger.tsv"
SETTINGS_NAME = "settings.json"

LEDGER_COLUMNS = (
    "name", "donor", "policy", "output_name", "dtype", "shape", "bytes", "sha256", "donor_file", "output_file", "reason",
)  # fmt: skip

# For the ledger, the index and the like, when free space is checked.
_SMALL_FILES_BYTES = 64 << 20


def check_config(config_path: Path, derived: Mapping[str, Any]) -> None:
    """Raises UserError where config.json is not what the donors and settings imply."""
    config = read_json(config_path)
    if not isinstance(config, dict):
        raise UserError(f"{config_path}: holds no section of keys; delete it and run derive_config.py again")
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
    resolved = output_dir.resolve()
    for donor_dir in donor_dirs:
        if resolved.is_relative_to(donor_dir.resolve()):
            raise UserError(
                f"{output_dir}: lies in the donor {donor_dir}, which must stay as it is; choose another results directory"
            )


def make_plan(
    vl_dir: Path,
    llm_dir: Path,
    vl: ConfigReader,
    llm: ConfigReader,
    derived: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> list[PlannedTensor]:
    """Reads the headers of both donors, checks every tensor against its config.json, and plans the result."""
    vl_donor = Donor("vl", by_published_name(read_checkpoint(vl_dir)), SAFETENSORS_DTYPES[dtype_name(vl)], str(vl.path))
    llm_donor = Donor("llm", read_checkpoint(llm_dir), SAFETENSORS_DTYPES[dtype_name(llm)], str(llm.path))
    vision = vision_shape(vl.child("vision_config"))
    vl_shapes = vision_shapes(vision) | language_shapes(
        language_shape(text_section(vl), tied(vl)), qk_norm=False, qkv_bias=True
    )
    llm_shape = language_shape(llm, tied(llm))
    llm_shapes = language_shapes(llm_shape, qk_norm=True, qkv_bias=False)
    check_tensors(vl_donor, vl_shapes)
    # A tied model's head may have been saved beside the embedding it repeats.
    head = {"lm_head.weight": (llm_shape.vocab_size, llm_shape.hidden_size)} if llm_shape.tie_word_embeddings else {}
    check_tensors(llm_donor, llm_shapes | head, optional=frozenset(head))

    is_qwen3 = settings["architecture"] == "qwen3"
    text = text_section(ConfigReader(derived, Path("config.json")))
    output_vision = replace(vision, out_hidden_size=derived["vision_config"]["out_hidden_size"])
    output_shapes = vision_shapes(output_vision) | language_shapes(
        language_shape(text, derived["tie_word_embeddings"]), qk_norm=is_qwen3, qkv_bias=not is_qwen3
    )
    merger = {name: vl_donor.tensors[f"visual.merger.{name}"] for name in ("ln_q.weight", "mlp.0.weight", "mlp.0.bias")}
    moment = (
        kept_input_moment(*merger.values()) if settings["aligner"] == "keep" else fresh_input_moment(vision.merged_size)
    )
    return plan_graft(
        vl_donor,
        llm_donor,
        vl_shapes,
        llm_shapes,
        output_shapes,
        architecture=settings["architecture"],
        aligner=settings["aligner"],
        mlp_2_std=mlp_2_std(llm_donor.tensors["model.embed_tokens.weight"], moment),
    )


def streamed(entry: PlannedTensor, seed: int) -> StreamedTensor:
    """How the bytes of a planned tensor come about."""
    num_values = math.prod(entry.shape)
    make_slabs = None
    if entry.std is not None:
        make_slabs = partial(normal_slabs, entry.output_name, num_values, entry.std, entry.dtype, seed, SLAB_BYTES)
    elif entry.value is not None:
        make_slabs = partial(constant_slabs, num_values, entry.value, entry.dtype, SLAB_BYTES)
    return StreamedTensor(entry.output_name, entry.dtype, entry.shape, entry.source, make_slabs)


def needs_reading(entry: PlannedTensor) -> bool:
    """False for the vision donor's language model, 15 GB of Qwen2.5-VL-7B of which the result holds nothing.

    Its bytes are accounted for by the checksums of its files (fetch_donor.py). What is dropped of the language donor is
    read: a tied head must repeat the embedding, and the q/k norms are small.
    """
    return entry.policy != "dropped" or entry.donor == "llm"


def check_tied_head(plan: Sequence[PlannedTensor], digests: Sequence[str]) -> None:
    """A head that is dropped because it is tied must really repeat the embedding."""
    rows = {entry.name: (entry, digest) for entry, digest in zip(plan, digests, strict=True) if entry.donor == "llm"}
    _, embedding_digest = rows["model.embed_tokens.weight"]
    head, head_digest = rows.get("lm_head.weight", (None, ""))
    if head and head.policy == "dropped" and head.source and head_digest != embedding_digest:
        raise UserError(
            f"{head.source.path}: tensor lm_head.weight differs from model.embed_tokens.weight, though the donor's "
            "config.json says tie_word_embeddings: true; expected equal bytes; set it to false in a copy of the donor"
        )


def ledger_text(plan: Sequence[PlannedTensor], digests: Sequence[str], shards: Sequence[Shard]) -> str:
    """The ledger: a header line, then one row a tensor, tab-separated, in the order of the plan."""
    output_files = {name: place.file_name for shard in shards for name, place in shard.places.items()}
    lines = ["\t".join(LEDGER_COLUMNS)]
    for entry, digest in zip(plan, digests, strict=True):
        row = {
            "name": entry.name,
            "donor": entry.donor,
            "policy": entry.policy,
            "output_name": entry.output_name,
            "dtype": entry.dtype,
            "shape": "x".join(map(str, entry.shape)),
            "bytes": str(entry.num_bytes),
            "sha256": digest,
            "donor_file": entry.source.path.name if entry.source else "",
            "output_file": output_files.get(entry.output_name, ""),
            "reason": entry.reason,
        }
        lines.append("\t".join(row[column] for column in LEDGER_COLUMNS))
    return "\n".join(lines) + "\n"


def write_synced(path: Path, content: bytes) -> None:
    """Writes a small file of mode 0644 and syncs it."""
    try:
        with open(path, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot write there ({error.strerror}); make room, or choose another results directory"
        ) from error


def publish(staging_dir: Path, output_dir: Path) -> None:
    """Moves the finished files to their place, index and ledger last, and removes what an earlier graft left."""
    names = {path.name for path in staging_dir.iterdir()}
    markers = [INDEX_NAME, LEDGER_NAME]
    for name in reversed(markers):
        (output_dir / name).unlink(missing_ok=True)
    for pattern in (SHARD_PATTERN, SINGLE_NAME, *TRAVELLING_PATTERNS):
        for path in output_dir.glob(pattern):
            if path.name not in names:
                path.unlink()
    for name in [*sorted(names - set(markers)), *markers]:
        if name in markers:
            fsync_directory(output_dir)
        os.replace(staging_dir / name, output_dir / name)
    fsync_directory(output_dir)


def graft(
    vl_dir: Path,
    llm_dir: Path,
    config_path: Path,
    settings: Mapping[str, Any],
    seed: int,
    code_dir: Path,
    output_dir: Path,
) -> None:
    """Makes the grafted checkpoint directory; raises UserError, with nothing left behind, when something is wrong."""
    started_at = time.monotonic()
    if settings["aligner"] not in ("fresh", "keep"):
        raise UserError(f"graft.aligner: {settings['aligner']!r} found; expected fresh or keep; correct it")
    vl, llm = read_vision_donor(vl_dir), read_language_donor(llm_dir)
    derived = derive_config(vl, llm, settings, tokenizers={})
    check_config(config_path, derived)
    check_output_dir(output_dir, (vl_dir, llm_dir))
    plan = make_plan(vl_dir, llm_dir, vl, llm, derived, settings)
    files = travelling_files(vl_dir, llm_dir, code_dir, dict(llm.values), derived.get("auto_map", {}))
    files[SETTINGS_NAME] = json_bytes({"graft": dict(settings), "seed": seed})

    tensors = [streamed(entry, seed) for entry in plan]
    outputs = [tensor for tensor in tensors if tensor.name]
    shards = lay_out_shards(outputs, int(settings["max_shard_gb"] * 1e9))
    staging_dir = output_dir / STAGING_NAME
    try:
        shutil.rmtree(staging_dir, ignore_errors=True)
        try:
            staging_dir.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"{output_dir}: cannot write there ({error.strerror}); expected a writable directory; choose another "
                "results directory"
            ) from error
        check_free_space(staging_dir, sum(shard.num_bytes for shard in shards) + _SMALL_FILES_BYTES)
        for name, content in files.items():
            write_synced(staging_dir / name, content)
        files.clear()
        is_read = [needs_reading(entry) for entry in plan]
        read_digests = iter(stream_tensors(list(compress(tensors, is_read)), shards, staging_dir, "graft"))
        digests = [next(read_digests) if was_read else "" for was_read in is_read]
        check_tied_head(plan, digests)
        write_synced(staging_dir / LEDGER_NAME, ledger_text(plan, digests, shards).encode())
        write_synced(staging_dir / INDEX_NAME, json_bytes(checkpoint_index(outputs, shards)))
        fsync_directory(staging_dir)
        publish(staging_dir, output_dir)
    finally:
        shutil.rmtree(staging_dir, ignore_errors=True)
    print(summary(plan, shards, time.monotonic() - started_at), file=sys.stderr)


def summary(plan: Sequence[PlannedTensor], shards: Sequence[Shard], elapsed_s: float) -> str:
    """What was done, in two lines."""
    num = {policy: sum(entry.policy == policy for entry in plan) for policy in ("copied", "initialised", "dropped")}
    num_lost = sum(entry.policy == "dropped" and entry.donor == "llm" for entry in plan)
    return (
        f"graft: {num['copied']} tensors copied, {num['initialised']} initialised, {num['dropped']} dropped "
        f"({num_lost} of them the language donor's); each has its row in {LEDGER_NAME}\n"
        f"graft: {sum(shard.num_bytes for shard in shards) / 1e9:.2f} GB in {len(shards)} shard(s), {elapsed_s:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vl-dir", type=Path, required=True, help="vision donor (Qwen2.5-VL)")
    parser.add_argument("--llm-dir", type=Path, required=True, help="language donor (Qwen3)")
    parser.add_argument("--config", type=Path, required=True, help="config.json made by derive_config.py")
    parser.add_argument("--settings", type=json.loads, required=True, help="section graft of the configuration, JSON")
    parser.add_argument("--seed", type=int, required=True, help="of the new tensors")
    parser.add_argument("--model-code-dir", type=Path, required=True, help="source of the grafted architecture")
    parser.add_argument("--output-dir", type=Path, required=True, help="checkpoint directory to make")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that clean-up runs
    graft(
        arguments.vl_dir,
        arguments.llm_dir,
        arguments.config,
        arguments.settings,
        arguments.seed,
        arguments.model_code_dir,
        arguments.output_dir,
    )


if __name__ == "__main__":
    run_program(main)
