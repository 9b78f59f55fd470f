"""Gets one donor's checkpoint, checks that it is whole, and records the sha256 of each of its files and tensors.

Everything after the donors is derived from them, so a truncated shard, a NaN or a file that was changed later must be
found here, before hours of work. A donor comes from ModelScope or Hugging Face (downloaded into --dir; an interrupted
download goes on where it stopped), or is a directory of the user's own, which is only read, or is the demo's, made on
the spot. The manifest is written last and whole: without a manifest there is no donor.

By hand: .venv/bin/python scripts donors.fetch_donor --config config/demo.yaml --role llm
"""

import argparse
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.input_files import read_section
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.settings import json_settings
from scripts.common.units import size
from scripts.donors.checksums import NEEDED_PATTERNS, SECONDS_BETWEEN_LINES, needed_files, record_files
from scripts.donors.library_errors import in_one_line
from scripts.donors.manifest import DonorManifest, FileRecord, read_manifest, write_manifest
from scripts.donors.other_kinds import require_usual_kind
from scripts.donors.safetensors_files import TensorOnDisk, read_checkpoint, read_shard
from scripts.donors.settings import DonorSource

# The model type that each role's config.json must have (transformers' names).
MODEL_TYPE_OF_ROLE = {"vl": "qwen2_5_vl", "llm": "qwen3"}

# With the model's page and licence, which go into the model card of what is made from it.
DOWNLOADED_PATTERNS = [*NEEDED_PATTERNS, "README.md", "LICENSE*", "NOTICE*"]
WEIGHTS_PATTERN = "*.safetensors"
HUB_NAMES = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}
MAX_REASON_CHARACTERS = 300


def check_whole(directory: Path, role: str) -> None:
    """Raises UserError unless the directory holds a whole checkpoint of the architecture that the role needs."""
    check_config(directory, role)
    tensors = read_checkpoint(directory)
    check_one_set_of_weights(directory, tensors)
    num_bytes = sum(tensor.num_bytes for tensor in tensors.values())
    log(f"{directory}: {len(tensors)} tensors, {size(num_bytes)}, every shard is whole")


def check_config(directory: Path, role: str) -> None:
    """Raises UserError unless the directory holds a checkpoint of the architecture that the role needs; weights are not read."""
    require_usual_kind(directory, f"donors.{role}")
    config_path = directory / "config.json"
    config = read_section(config_path)
    found, expected = config.get("model_type"), MODEL_TYPE_OF_ROLE[role]
    if found != expected:
        raise UserError(
            f"{config_path}: model_type {found!r} found, {expected!r} expected for donors.{role}; "
            "give another donor, or swap donors.vl and donors.llm if they were mixed up"
        )


def check_one_set_of_weights(directory: Path, tensors: Mapping[str, TensorOnDisk]) -> None:
    """Raises UserError where another file of weights has tensors of the same names: each reader would take another set."""
    used = {tensor.path.name for tensor in tensors.values()}
    for path in sorted(directory.glob("*.safetensors")):
        if path.name not in used and (twice := sorted(read_shard(path).keys() & tensors.keys())):
            raise UserError(
                f"{path}: two sets of weights: holds {twice[0]} ({len(twice)} such tensors), as do {sorted(used)[0]} and others; "
                "expected one set, since transformers and others would read different ones; remove the stale files, or give a "
                "copy of the donor without them"
            )


def check_unchanged(records: Sequence[FileRecord], manifest_path: Path, source: DonorSource, directory: Path) -> None:
    """Raises UserError when a file is no longer what an earlier manifest of the same source recorded."""
    if not manifest_path.exists():
        return
    earlier = read_manifest(manifest_path)
    if earlier.source != source:
        return
    now = {record.name: record for record in records}
    for record in earlier.files:
        found = now.get(record.name)
        if found is None or found.sha256 != record.sha256:
            state = "absent" if found is None else f"sha256 {found.sha256}"
            raise UserError(
                f"{directory / record.name}: changed since {manifest_path} was written: {state} found, "
                f"sha256 {record.sha256} recorded; bring the recorded file back, or remove {manifest_path} "
                "if the change is meant (everything made from this donor will then be made again)"
            )


@contextmanager
def growth_logged(directory: Path) -> Iterator[None]:
    """Logs every few seconds how much has arrived in `directory`."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(SECONDS_BETWEEN_LINES):
            sizes = []
            for path in directory.rglob("*"):
                try:
                    sizes.append(path.stat().st_size if path.is_file() else 0)
                except FileNotFoundError:
                    continue  # a partial file was renamed in the meantime
            log(f"{directory}: {size(sum(sizes))} so far")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def download(source: DonorSource, directory: Path, patterns: Sequence[str]) -> None:
    """Downloads files by the hub's own library, which keeps what is already there.

    After an interruption ModelScope's library goes on within a file; Hugging Face's begins that one file again.
    """
    os.environ["TQDM_DISABLE"] = "1"  # no progress bars in a log; read by tqdm when either library imports it
    if source.kind == "modelscope":
        from modelscope import snapshot_download

        snapshot_download(source.id, revision=source.revision, local_dir=str(directory), allow_patterns=list(patterns))
    else:
        from huggingface_hub import snapshot_download

        snapshot_download(source.id, revision=source.revision, local_dir=directory, allow_patterns=list(patterns))


def fetch(role: str, source: DonorSource, directory: Path) -> None:
    """Downloads a donor, its weights once its config.json is one that the role needs."""
    log(
        f"donors.{role}: fetching {source.id}, revision {source.revision}, from {HUB_NAMES[source.kind]} into {directory}"
    )
    download_or_explain(
        role, source, directory, [pattern for pattern in DOWNLOADED_PATTERNS if pattern != WEIGHTS_PATTERN]
    )
    if (directory / "config.json").exists():  # without one the whole repository says what kind it is
        check_config(directory, role)
    download_or_explain(role, source, directory, DOWNLOADED_PATTERNS)


def download_or_explain(role: str, source: DonorSource, directory: Path, patterns: Sequence[str]) -> None:
    """Any failure becomes one message with the remedy."""
    hub = HUB_NAMES[source.kind]
    try:
        with growth_logged(directory):
            download(source, directory, patterns)
    # The hubs' libraries raise errors of many families (requests, httpx, their own, ValueError for a malformed id).
    except Exception as error:
        reason = in_one_line(error, MAX_REASON_CHARACTERS)
        raise UserError(
            f"donors.{role}: {source.id} (revision {source.revision}) could not be fetched from {hub} ({reason}); "
            "expected a reachable hub that has this id and revision; run the same command again where there is "
            f"internet (it goes on from what is in {directory}), or point donors.{role} at a directory that holds "
            "the checkpoint: {kind: local, path: ...}"
        ) from error


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--role", required=True, choices=sorted(MODEL_TYPE_OF_ROLE))
    parser.add_argument(
        "--source",
        required=True,
        type=json_settings(DonorSource, "donors.ROLE"),
        help="the config's donors.ROLE, as JSON",
    )
    parser.add_argument("--dir", required=True, type=Path, help="where the weights are, or are downloaded to")
    parser.add_argument("--manifest", required=True, type=Path, help="the JSON file to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    role, source, directory = arguments.role, arguments.source, arguments.dir
    is_fetched = source.kind in HUB_NAMES
    with owned(arguments.manifest, *[directory] * is_fetched, inputs=[] if is_fetched else [directory]):
        if is_fetched:
            fetch(role, source, directory)
        check_whole(directory, role)
        records = record_files(needed_files(directory))
        if source.kind != "demo":  # the demo's donors are made again whenever their settings change
            check_unchanged(records, arguments.manifest, source, directory)
        write_manifest(arguments.manifest, DonorManifest(role, source, str(directory), records))
        log(f"{arguments.manifest}: {len(records)} files recorded")


if __name__ == "__main__":
    run_program(main)
