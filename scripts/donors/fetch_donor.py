"""Gets one donor's checkpoint, checks that it is whole, and records the sha256 of each of its files and tensors.

Everything after the donors is derived from them, so a truncated shard, a NaN or a file that was changed later must be
found here, before hours of work. A donor comes from ModelScope or Hugging Face (downloaded into --dir; an interrupted
download goes on where it stopped), or is a directory of the user's own, which is only read, or is the demo's, made on
the spot. The manifest is written last and whole: while it is absent, the donor is not there.

By hand, for a hub and for a directory of your own:
  .venvs/train/bin/python scripts donors.fetch_donor --role llm --dir resources/donors/qwen3 --manifest \
    resources/donors/qwen3.json --source '{"kind": "modelscope", "id": "Qwen/Qwen3-8B", "revision": "master"}'
  .venvs/train/bin/python scripts donors.fetch_donor --role llm --dir /models/Qwen3-8B --manifest \
    resources/donors/qwen3.json --source '{"kind": "local", "path": "/models/Qwen3-8B"}'
"""

import argparse
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.files import read_json, write_json_atomically
from scripts.common.logger import log
from scripts.common.safetensors_files import read_checkpoint
from scripts.donors.manifest import NEEDED_PATTERNS, SECONDS_BETWEEN_LINES, gigabytes, needed_files, record_files

# The model type that each role's config.json must have (transformers' names).
MODEL_TYPE_OF_ROLE = {"vl": "qwen2_5_vl", "llm": "qwen3"}

# With what is said of the model: its licence goes into the model card of what is made from it.
DOWNLOADED_PATTERNS = [*NEEDED_PATTERNS, "README.md", "LICENSE*", "NOTICE*"]
HUB_NAMES = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}
MAX_REASON_CHARACTERS = 300


def check_whole(directory: Path, role: str) -> None:
    """Raises UserError unless the directory holds a whole checkpoint of the architecture that the role asks for."""
    if not directory.is_dir():
        raise UserError(
            f"{directory}: not found; expected the checkpoint directory of donors.{role}; check the path in the config"
        )
    config_path = directory / "config.json"
    config = read_json(config_path)
    found, expected = config.get("model_type"), MODEL_TYPE_OF_ROLE[role]
    if found != expected:
        raise UserError(
            f"{config_path}: model_type {found!r} found, {expected!r} expected for donors.{role}; "
            "give another donor, or swap donors.vl and donors.llm if they were mixed up"
        )
    tensors = read_checkpoint(directory)
    log(
        f"{directory}: {len(tensors)} tensors, {gigabytes(sum(tensor.num_bytes for tensor in tensors.values()))}, "
        "every shard is whole"
    )


def check_unchanged(
    records: Sequence[dict[str, Any]], manifest_path: Path, source: dict[str, Any], directory: Path
) -> None:
    """Raises UserError when a file is no longer what an earlier manifest of the same source recorded."""
    if not manifest_path.exists():
        return
    earlier = read_json(manifest_path)
    if earlier.get("source") != source:
        return
    now = {record["name"]: record for record in records}
    for record in earlier.get("files", []):
        found = now.get(record["name"])
        if found is None or found["sha256"] != record["sha256"]:
            state = "absent" if found is None else f"sha256 {found['sha256']}"
            raise UserError(
                f"{directory / record['name']}: changed since {manifest_path} was written: {state} found, "
                f"sha256 {record['sha256']} recorded; bring the recorded file back, or remove {manifest_path} "
                "if the change is meant (everything made from this donor will then be made again)"
            )


@contextmanager
def growth_reported(directory: Path) -> Iterator[None]:
    """Says every few seconds how much has arrived in `directory`."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(SECONDS_BETWEEN_LINES):
            sizes = []
            for path in directory.rglob("*"):
                try:
                    sizes.append(path.stat().st_size if path.is_file() else 0)
                except FileNotFoundError:
                    continue  # a partial file was renamed in the meantime
            log(f"{directory}: {gigabytes(sum(sizes))} so far")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def download(kind: str, model_id: str, revision: str, directory: Path) -> None:
    """Downloads the needed files by the hub's own library, which keeps what is already there.

    After a break ModelScope's goes on within a file; Hugging Face's begins that one file anew.
    """
    os.environ["TQDM_DISABLE"] = "1"  # bars are no lines; read by tqdm when either library imports it
    if kind == "modelscope":
        from modelscope import snapshot_download

        snapshot_download(model_id, revision=revision, local_dir=str(directory), allow_patterns=DOWNLOADED_PATTERNS)
    else:
        from huggingface_hub import snapshot_download

        snapshot_download(model_id, revision=revision, local_dir=directory, allow_patterns=DOWNLOADED_PATTERNS)


def fetch(role: str, source: dict[str, Any], directory: Path) -> None:
    """Downloads a donor; whatever goes wrong on the way becomes one message with the remedy."""
    kind, model_id, revision = source["kind"], source["id"], source["revision"]
    log(f"donors.{role}: fetching {model_id}, revision {revision}, from {HUB_NAMES[kind]} into {directory}")
    try:
        with growth_reported(directory):
            download(kind, model_id, revision, directory)
    # The hubs' libraries raise errors of many families (requests, httpx, their own, ValueError for a malformed id).
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_CHARACTERS]
        raise UserError(
            f"donors.{role}: {model_id} (revision {revision}) could not be fetched from {HUB_NAMES[kind]} ({reason}); "
            "expected a reachable hub that has this id and revision; run the same command again where there is "
            f"internet (it goes on from what is in {directory}), or point donors.{role} at a directory that holds "
            "the checkpoint: {kind: local, path: ...}"
        ) from error


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--role", required=True, choices=sorted(MODEL_TYPE_OF_ROLE))
    parser.add_argument("--source", required=True, type=json.loads, help="the config's donors.ROLE, as JSON")
    parser.add_argument("--dir", required=True, type=Path, help="where the weights are, or are downloaded to")
    parser.add_argument("--manifest", required=True, type=Path, help="the JSON file to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    source = arguments.source
    if source["kind"] in HUB_NAMES:
        fetch(arguments.role, source, arguments.dir)
    check_whole(arguments.dir, arguments.role)
    records = record_files(needed_files(arguments.dir))
    if source["kind"] != "demo":  # the demo's donors are made again whenever their settings change
        check_unchanged(records, arguments.manifest, source, arguments.dir)
    manifest = {"role": arguments.role, "source": source, "dir": str(arguments.dir), "files": records}
    write_json_atomically(arguments.manifest, manifest)
    log(f"{arguments.manifest}: {len(records)} files recorded")


if __name__ == "__main__":
    run_program(main)
