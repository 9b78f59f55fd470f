#!/usr/bin/env python3
"""Grafts a Qwen2.5-VL vision tower onto a Qwen3 language model: two checkpoints in, one loadable checkpoint out.

Why not load both models, copy and save, as the published recipe does: that needs both in memory, drops 72 q/k norms
without a word, and writes weights that no program can load for want of a tokenizer and a processor. Here bytes go from
file to file, or stay where they are: a donor's shard that goes into the result as it is can be linked. Each
tensor of either donor is copied or dropped by a stated policy (graft/ledger.tsv has a row for each), anything that is not
planned is an error, and the directory is usable as it stands. docs/graft.md explains the rest.

The result appears as a whole: everything is written into a hidden directory beside its place, synced, and moved: weights
first, then their index (without which there is no checkpoint), the ledger last. Interrupted at any time, the same
command starts over.

By hand, from the repository root, after fetch_donor.py and derive_config.py (without the manifests the donors are read
once more, for the checksums of their tensors):

    .venv/bin/python scripts graft.graft --vl-dir resources/donors/VL --vl-manifest resources/donors/VL.json \
        --llm-dir resources/donors/LLM --llm-manifest resources/donors/LLM.json \
        --model-config results/NAME/graft/config.json --model-code-dir model/qwen2_5_vl_qwen3 --seed 0 --settings \
        '{"architecture": "qwen3", "aligner": "fresh", "calibration": "none", "max_shard_gb": 4, "link": "auto"}' \
        --output-dir results/NAME/graft
"""

import argparse
import json
import math
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.files import fsync_directory, read_json
from scripts.common.logger import log
from scripts.common.safetensors_files import INDEX_NAME, read_checkpoint, read_shard
from scripts.donors.checksums import record_files, tensor_digests
from scripts.graft.aligner_init import constant_slabs, fresh_input_moment, kept_input_moment, mlp_2_std, normal_slabs
from scripts.graft.config import derive_config
from scripts.graft.donor_configs import (
    ConfigReader,
    language_shape,
    read_language_donor,
    read_vision_donor,
    text_section,
    tied,
    vision_shape,
)
from scripts.graft.ledger import LEDGER_NAME, ledger_text
from scripts.graft.plan import (
    Donor,
    PlannedTensor,
    by_published_name,
    check_tensors,
    language_shapes,
    plan_graft,
    vision_shapes,
)
from scripts.graft.publishing import publish, share_shards, write_synced
from scripts.graft.shard_layout import OutputTensor, checkpoint_index, lay_out_shards
from scripts.graft.shard_writer import SLAB_BYTES, check_free_space, write_shards
from scripts.graft.travelling_files import json_bytes, travelling_files

STAGING_NAME = ".graft.partial"
SETTINGS_NAME = "settings.json"

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
    refit_path: Path | None,
) -> list[PlannedTensor]:
    """Reads the headers of both donors, checks every tensor against its config.json, and plans the result."""
    vl_donor = Donor("vl", by_published_name(read_checkpoint(vl_dir)), str(vl.path))
    llm_donor = Donor("llm", read_checkpoint(llm_dir), str(llm.path))
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
        refit=read_shard(refit_path) if refit_path else {},
    )


def output_tensor(entry: PlannedTensor, seed: int) -> OutputTensor:
    """How the bytes of a planned tensor come about."""
    num_values = math.prod(entry.shape)
    make_slabs = None
    if entry.std is not None:
        make_slabs = partial(normal_slabs, entry.output_name, num_values, entry.std, entry.dtype, seed, SLAB_BYTES)
    elif entry.value is not None:
        make_slabs = partial(constant_slabs, num_values, entry.value, entry.dtype, SLAB_BYTES)
    return OutputTensor(entry.output_name, entry.dtype, entry.shape, entry.source, make_slabs)


def donor_digest(entry: PlannedTensor, digests: Mapping[str, Mapping[str, str]]) -> str:
    """sha256 of a donor's tensor; raises UserError where its record lacks it."""
    if digest := digests[entry.donor].get(entry.name):
        return digest
    where = entry.source.path if entry.source else entry.name
    raise UserError(
        f"{where}: tensor {entry.name} is not in the record of its donor; expected its sha256 there; remove the donor's "
        "manifest (resources/donors/*.json), so that it is recorded again"
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


def graft(
    vl_dir: Path,
    llm_dir: Path,
    config_path: Path,
    settings: Mapping[str, Any],
    seed: int,
    code_dir: Path,
    output_dir: Path,
    vl_manifest_path: Path | None = None,
    llm_manifest_path: Path | None = None,
    refit_path: Path | None = None,
) -> None:
    """Makes the grafted checkpoint directory; raises UserError, with nothing left behind, when something is wrong."""
    started_at = time.monotonic()
    if settings["aligner"] not in ("fresh", "keep"):
        raise UserError(f"graft.aligner: {settings['aligner']!r} found; expected fresh or keep; correct it")
    if (settings["calibration"] == "affine") != (refit_path is not None):
        raise UserError(
            f"graft.calibration: {settings['calibration']!r} found {'with' if refit_path else 'without'} --refit; expected "
            "a refit for affine, and none otherwise; give calibrate.py's output, or correct the setting"
        )
    vl, llm = read_vision_donor(vl_dir), read_language_donor(llm_dir)
    derived = derive_config(vl, llm, settings, tokenizers={})
    check_config(config_path, derived)
    check_output_dir(output_dir, (vl_dir, llm_dir))
    plan = make_plan(vl_dir, llm_dir, vl, llm, derived, settings, refit_path)
    donor_digests = {
        "vl": tensor_digests(vl_dir, vl_manifest_path),
        "llm": tensor_digests(llm_dir, llm_manifest_path),
    }
    check_tied_head(plan, donor_digests["llm"])
    recorded_digests = [donor_digest(entry, donor_digests) if entry.donor else "" for entry in plan]
    refit_digests = (record_files([refit_path])[0].tensors or {}) if refit_path else {}
    files = travelling_files(vl_dir, llm_dir, code_dir, dict(llm.values), derived.get("auto_map", {}))
    files[SETTINGS_NAME] = json_bytes({"graft": dict(settings), "seed": seed})

    outputs = [output_tensor(entry, seed) for entry in plan if entry.output_name]
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
        unshared = share_shards(shards, staging_dir) if settings["link"] == "auto" else shards
        check_free_space(staging_dir, sum(shard.num_bytes for shard in unshared) + _SMALL_FILES_BYTES)
        for name, content in files.items():
            write_synced(staging_dir / name, content)
        files.clear()
        made_digests = refit_digests | write_shards(outputs, unshared, staging_dir, "graft")
        digests = [
            recorded or made_digests[entry.output_name] for entry, recorded in zip(plan, recorded_digests, strict=True)
        ]
        write_synced(staging_dir / LEDGER_NAME, ledger_text(plan, digests, shards).encode())
        write_synced(staging_dir / INDEX_NAME, json_bytes(checkpoint_index(outputs, shards)))
        fsync_directory(staging_dir)
        publish(staging_dir, output_dir)
    finally:
        shutil.rmtree(staging_dir, ignore_errors=True)
    log(summary(plan))
    num_shared_bytes = sum(shard.num_bytes for shard in shards) - sum(shard.num_bytes for shard in unshared)
    log(
        f"{sum(shard.num_bytes for shard in shards) / 1e9:.2f} GB in {len(shards)} shard(s), "
        f"{num_shared_bytes / 1e9:.2f} GB of it linked with the donors' files, {time.monotonic() - started_at:.1f} s"
    )


def summary(plan: Sequence[PlannedTensor]) -> str:
    """What was done with the tensors."""
    num = Counter(entry.policy for entry in plan)
    num_lost = sum(entry.policy == "dropped" and entry.donor == "llm" for entry in plan)
    return (
        f"{num['copied']} tensors copied, {num['refitted']} refitted, {num['initialised']} initialised, {num['dropped']} dropped "
        f"({num_lost} of them the language donor's); each has its row in {LEDGER_NAME}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vl-dir", type=Path, required=True, help="vision donor (Qwen2.5-VL)")
    parser.add_argument("--llm-dir", type=Path, required=True, help="language donor (Qwen3)")
    parser.add_argument("--vl-manifest", type=Path, help="its record by fetch_donor.py")
    parser.add_argument("--llm-manifest", type=Path, help="the language donor's record")
    parser.add_argument("--refit", type=Path, help="calibrate.py's output, for graft.calibration: affine")
    parser.add_argument("--model-config", type=Path, required=True, help="config.json made by derive_config.py")
    parser.add_argument("--settings", type=json.loads, required=True, help="section graft of the configuration, JSON")
    parser.add_argument("--seed", type=int, required=True, help="of the new tensors")
    parser.add_argument("--model-code-dir", type=Path, required=True, help="source of the grafted architecture")
    parser.add_argument("--output-dir", type=Path, required=True, help="checkpoint directory to make")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that clean-up runs
    graft(
        arguments.vl_dir,
        arguments.llm_dir,
        arguments.model_config,
        arguments.settings,
        arguments.seed,
        arguments.model_code_dir,
        arguments.output_dir,
        arguments.vl_manifest,
        arguments.llm_manifest,
        arguments.refit,
    )


if __name__ == "__main__":
    run_program(main)
