"""Grafts a Qwen2.5-VL vision tower onto a Qwen3 language model: two checkpoints in, one loadable checkpoint out.

Why not load both models, copy and save, as the published recipe does? That needs both in memory, drops 72 q/k norms
without a message, and writes weights that no program can load, since tokenizer and processor are missing. Here bytes go
from file to file, or stay where they are: a donor's shard that goes into the result unchanged can be linked. Each tensor
of either donor is copied or dropped by a stated policy (graft/ledger.tsv has a row for each), anything that is not
planned is an error, and the directory can be used as it is. docs/graft.md explains the rest.

The result appears as a whole: everything is written into a hidden directory beside its place, synced, and moved: weights
first, then their index (without which there is no checkpoint), the ledger last. Interrupted at any time, the same
command starts over.

By hand: .venv/bin/python scripts graft.graft --config config/demo.yaml
"""

import argparse
import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import fsync_directory
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import SEAL_KEY, seal_of
from scripts.common.settings import json_settings
from scripts.common.units import duration, size
from scripts.common.whole_numbers import seed_number
from scripts.donors.checksums import record_files, tensor_digests
from scripts.donors.safetensors_files import INDEX_NAME
from scripts.graft.calibration_report import check_refit_is_reported
from scripts.graft.config import derive_config
from scripts.graft.donor_configs import read_language_donor, read_vision_donor
from scripts.graft.ledger import LEDGER_NAME, ledger_text
from scripts.graft.machine_paths import is_searched, path_in
from scripts.graft.picture_processing import check_processing_files
from scripts.graft.plan import PlannedTensor
from scripts.graft.preparation import (
    DonorConfigs,
    check_config,
    check_output_dir,
    check_tied_head,
    donor_digest,
    ledger_rows,
    make_plan,
    output_tensor,
)
from scripts.graft.publishing import publish, share_shards, write_small_file
from scripts.graft.settings import SETTINGS_NAME, GraftSettings, SavedSettings
from scripts.graft.shard_layout import OutputTensor, Shard, checkpoint_index, lay_out_shards
from scripts.graft.shard_writer import check_free_space, write_shards
from scripts.graft.travelling_files import json_bytes, travelling_files

STAGING_NAME = ".graft.partial"

# For the ledger, the index and the like, when free space is checked.
_SMALL_FILES_BYTES = 64 << 20


@dataclass(frozen=True)
class GraftJob:
    """What is grafted, how, and where to. Without its manifest a donor is read once more, for its checksums."""

    vl_dir: Path
    llm_dir: Path
    config_path: Path
    settings: GraftSettings
    seed: int
    code_dir: Path
    output_dir: Path
    vl_manifest_path: Path | None = None
    llm_manifest_path: Path | None = None
    refit_path: Path | None = None
    calibration_path: Path | None = None  # the report of the refit

    @property
    def staging_dir(self) -> Path:
        return self.output_dir / STAGING_NAME


@dataclass(frozen=True)
class PreparedGraft:
    """All that is written, known before the first byte."""

    plan: list[PlannedTensor]
    donor_digests: list[str]  # sha256 of each planned tensor; empty where it is no donor's
    refit_digests: dict[str, str]
    outputs: list[OutputTensor]
    shards: list[Shard]
    files: dict[str, bytes]


def prepare(job: GraftJob) -> PreparedGraft:
    """Reads and checks both donors; raises UserError when something does not fit."""
    if job.settings.is_refitted != (job.refit_path is not None):
        raise UserError(
            f"graft.calibration: {job.settings.calibration!r} found {'with' if job.refit_path else 'without'} --refit; "
            "expected a refit for affine, and none otherwise; give calibrate.py's output, or correct the setting"
        )
    vl, llm = read_vision_donor(job.vl_dir), read_language_donor(job.llm_dir)
    derived = derive_config(vl, llm, job.settings)
    check_config(job.config_path, derived)
    check_output_dir(job.output_dir, (job.vl_dir, job.llm_dir))
    plan = make_plan(job.vl_dir, job.llm_dir, DonorConfigs(vl, llm, derived), job.settings, job.refit_path)
    digests = {
        "vl": tensor_digests(job.vl_dir, job.vl_manifest_path),
        "llm": tensor_digests(job.llm_dir, job.llm_manifest_path),
    }
    check_tied_head(plan, digests["llm"])
    refit = record_files([job.refit_path])[0] if job.refit_path else None
    if refit and job.refit_path and job.calibration_path:
        check_refit_is_reported(job.refit_path, refit.sha256, job.calibration_path)
    files = travelling_files(job.vl_dir, job.llm_dir, job.code_dir, dict(llm.values), derived.get("auto_map", {}))
    check_processing_files(files, job.vl_dir)
    check_no_machine_paths(job, files)
    contents = {**files, job.config_path.name: job.config_path.read_bytes()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())}
    saved = asdict(SavedSettings(job.settings, job.seed, sums))
    files[SETTINGS_NAME] = json_bytes(saved | {SEAL_KEY: seal_of(saved)})
    outputs = [output_tensor(entry, job.seed) for entry in plan if entry.output_name]
    return PreparedGraft(
        plan=plan,
        donor_digests=[donor_digest(entry, digests) if entry.donor else "" for entry in plan],
        refit_digests=refit.tensors or {} if refit else {},
        outputs=outputs,
        shards=lay_out_shards(outputs, int(job.settings.max_shard_gb * 1e9)),
        files=files,
    )


def check_no_machine_paths(job: GraftJob, files: Mapping[str, bytes]) -> None:
    """Raises UserError when a file that a donor hands on names one: every checkpoint that is trained would be refused for it."""
    for name, content in files.items():
        if is_searched(name, len(content)) and (found := path_in(name, content)):
            raise UserError(
                f"{name} of a donor: {found}; expected none in what goes on into the published model; remove it from that "
                f"file in {job.vl_dir} or {job.llm_dir}, with the donor's manifest where there is one"
            )


def make_staging_dir(job: GraftJob) -> None:
    """An empty directory beside the result; one that a killed run has left is removed."""
    shutil.rmtree(job.staging_dir, ignore_errors=True)
    try:
        job.staging_dir.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{job.output_dir}: cannot write there ({error.strerror}); expected a writable directory; choose another "
            "results directory"
        ) from error


def write_graft(job: GraftJob, prepared: PreparedGraft) -> list[Shard]:
    """Writes everything into the staging directory; returns the shards that were written instead of linked."""
    staging_dir, shards = job.staging_dir, prepared.shards
    unlinked = share_shards(shards, staging_dir) if job.settings.link == "auto" else shards
    check_free_space(staging_dir, sum(shard.num_bytes for shard in unlinked) + _SMALL_FILES_BYTES)
    for name, content in prepared.files.items():
        write_small_file(staging_dir / name, content)
    made_digests = prepared.refit_digests | write_shards(prepared.outputs, unlinked, staging_dir, "graft")
    digests = [
        of_donor or made_digests[entry.output_name]
        for entry, of_donor in zip(prepared.plan, prepared.donor_digests, strict=True)
    ]
    ledger = ledger_text(ledger_rows(prepared.plan, digests, shards))
    write_small_file(staging_dir / LEDGER_NAME, ledger.encode())
    write_small_file(staging_dir / INDEX_NAME, json_bytes(checkpoint_index(prepared.outputs, shards)))
    fsync_directory(staging_dir)
    return unlinked


def graft(job: GraftJob) -> None:
    """Makes the grafted checkpoint directory; raises UserError, with nothing left behind, when something is wrong."""
    started_at = time.monotonic()
    prepared = prepare(job)
    try:
        make_staging_dir(job)
        unlinked = write_graft(job, prepared)
        publish(job.staging_dir, job.output_dir)
    finally:
        shutil.rmtree(job.staging_dir, ignore_errors=True)
    log(summary(prepared.plan))
    num_bytes, num_unlinked_bytes = (sum(shard.num_bytes for shard in part) for part in (prepared.shards, unlinked))
    log(
        f"{size(num_bytes)} in {len(prepared.shards)} shard(s), {size(num_bytes - num_unlinked_bytes)} of it linked with "
        f"the donors' files, {duration(time.monotonic() - started_at)}"
    )


def summary(plan: Sequence[PlannedTensor]) -> str:
    """What was done with the tensors."""
    num = Counter(entry.policy for entry in plan)
    num_lost = sum(entry.policy == "dropped" and entry.donor == "llm" for entry in plan)
    return (
        f"{num['copied']} tensors copied, {num['refitted']} refitted, {num['initialised']} initialised, {num['dropped']} dropped "
        f"({num_lost} of them the language donor's); each has its row in {LEDGER_NAME}"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vl-dir", type=Path, required=True, help="vision donor (Qwen2.5-VL)")
    parser.add_argument("--llm-dir", type=Path, required=True, help="language donor (Qwen3)")
    parser.add_argument("--vl-manifest", type=Path, help="the vision donor's manifest")
    parser.add_argument("--llm-manifest", type=Path, help="the language donor's manifest")
    parser.add_argument("--refit", type=Path, help="calibrate.py's output, for graft.calibration: affine")
    parser.add_argument("--calibration", type=Path, help="calibrate.py's report, which the refit is compared with")
    parser.add_argument("--model-config", type=Path, required=True, help="config.json made by derive_config.py")
    parser.add_argument(
        "--settings", type=json_settings(GraftSettings, "graft"), required=True, help="the config's `graft`, as JSON"
    )
    parser.add_argument("--seed", type=seed_number, required=True, help="of the new tensors")
    parser.add_argument("--model-code-dir", type=Path, required=True, help="source of the grafted architecture")
    parser.add_argument("--output-dir", type=Path, required=True, help="checkpoint directory to make")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with owned(arguments.output_dir):
        graft(
            GraftJob(
                vl_dir=arguments.vl_dir,
                llm_dir=arguments.llm_dir,
                config_path=arguments.model_config,
                settings=arguments.settings,
                seed=arguments.seed,
                code_dir=arguments.model_code_dir,
                output_dir=arguments.output_dir,
                vl_manifest_path=arguments.vl_manifest,
                llm_manifest_path=arguments.llm_manifest,
                refit_path=arguments.refit,
                calibration_path=arguments.calibration,
            )
        )


if __name__ == "__main__":
    run_program(main)
