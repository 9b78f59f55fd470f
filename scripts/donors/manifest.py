"""What is recorded of a donor's files: sizes, times, and the sha256 of each file and of each tensor in it.

A donor is read once, when it is fetched, and in that pass hashed and searched for NaN and infinity. What comes later
(the graft, which moves 16 GB of it) relies on the record instead of reading everything again: a file whose size and
time are the recorded ones is taken for unchanged, one with another time is hashed again.
"""

import hashlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json, sha256_of_file
from scripts.common.reading import require
from scripts.common.safetensors_files import DTYPE_BYTES, TensorOnDisk, read_shard
from scripts.common.tensor_values import FLOAT_DTYPES, first_non_finite

# What a checkpoint needs to be loaded: weights, configurations, tokenizer, chat template; no .bin or .gguf twins.
NEEDED_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt")

NUM_FILES_AT_A_TIME = 2  # each on two threads; hashlib releases the interpreter's lock, and a disk seldom feeds more
BLOCK_BYTES = 8 << 20
SECONDS_BETWEEN_LINES = 10.0


def gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"


@dataclass
class HashProgress:
    """Counts hashed bytes over all files and says so now and then."""

    total_bytes: int
    done_bytes: int = 0
    last_line_s: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, num_bytes: int) -> None:
        with self.lock:
            self.done_bytes += num_bytes
            if time.monotonic() - self.last_line_s < SECONDS_BETWEEN_LINES:
                return
            self.last_line_s = time.monotonic()
            line = f"checksums: {gigabytes(self.done_bytes)} of {gigabytes(self.total_bytes)}"
            print(line, file=sys.stderr, flush=True)


def needed_files(directory: Path) -> list[Path]:
    """The files of a checkpoint that are used, in order of their names."""
    return sorted({path for pattern in NEEDED_PATTERNS for path in directory.glob(pattern) if path.is_file()})


def blocks_of(path: Path, tensors: Sequence[TensorOnDisk]) -> Iterator[tuple[bytes, TensorOnDisk | None, int]]:
    """The bytes of a file in order, in blocks: (block, the tensor it lies in or None, the block's place in that tensor)."""
    ends: list[tuple[int, TensorOnDisk | None]] = [(tensor.offset, None) for tensor in tensors[:1]]  # the header
    ends += [(tensor.offset + tensor.num_bytes, tensor) for tensor in tensors]
    with open(path, "rb") as file:
        for end, tensor in ends:
            while (position := file.tell()) < end:
                block = file.read(min(BLOCK_BYTES, end - position))
                if not block:
                    raise UserError(
                        f"{path}: ends at byte {position}, {end} expected; the file changed; fetch it again"
                    )
                yield block, tensor, position - tensor.offset if tensor else 0
        while block := file.read(BLOCK_BYTES):
            yield block, None, 0


def check_finite(block: bytes, tensor: TensorOnDisk, position: int) -> None:
    """Raises UserError where a block, at byte `position` of its tensor, holds NaN or infinity."""
    if tensor.dtype not in FLOAT_DTYPES:
        return
    if (index := first_non_finite(block, tensor.dtype)) is not None:
        raise UserError(
            f"{tensor.path}: tensor {tensor.name} holds NaN or infinity, first at index "
            f"{position // DTYPE_BYTES[tensor.dtype] + index} of its values; expected finite weights; fetch this donor "
            "again, or take another revision of it"
        )


def record_file(path: Path, progress: HashProgress) -> dict[str, Any]:
    """Name, size, time and sha256 of one file, and of a safetensors file the sha256 of each tensor.

    Raises UserError where a tensor holds NaN or infinity.
    """
    status = path.stat()
    is_weights = path.suffix == ".safetensors"
    tensors = list(read_shard(path).values()) if is_weights else []
    file_digest = hashlib.sha256()
    digests = {tensor.name: hashlib.sha256() for tensor in tensors}

    def take(block: bytes, tensor: TensorOnDisk, position: int) -> None:
        digests[tensor.name].update(block)
        check_finite(block, tensor, position)

    with ThreadPoolExecutor(1) as beside:  # the tensor's hash beside the file's
        for block, tensor, position in blocks_of(path, tensors):
            taken = beside.submit(take, block, tensor, position) if tensor else None
            file_digest.update(block)
            if taken:
                taken.result()
            progress.add(len(block))
    record: dict[str, Any] = {"name": path.name, "num_bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    record["sha256"] = file_digest.hexdigest()
    if is_weights:
        record["tensors"] = {name: digest.hexdigest() for name, digest in digests.items()}
    return record


def record_files(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of all files."""
    progress = HashProgress(total_bytes=sum(path.stat().st_size for path in paths))
    with ThreadPoolExecutor(NUM_FILES_AT_A_TIME) as pool:
        return list(pool.map(lambda path: record_file(path, progress), paths))


def check_still_recorded(directory: Path, records: Sequence[dict[str, Any]], manifest_path: Path) -> None:
    """Raises UserError where a recorded file is no longer the one that was recorded.

    A file that was only touched is hashed again; people touch files to keep them from a cluster's purge.
    """
    for record in records:
        path = directory / record["name"]
        try:
            status = path.stat()
        except OSError:
            state = "it is absent"
        else:
            if (status.st_size, status.st_mtime_ns) == (record["num_bytes"], record.get("modified_ns")):
                continue
            if status.st_size != record["num_bytes"]:
                state = f"{status.st_size} bytes found, {record['num_bytes']} recorded"
            elif sha256_of_file(path) == record["sha256"]:
                continue
            else:
                state = "other bytes of the same number"
        raise UserError(
            f"{path}: changed since {manifest_path} was written ({state}); bring the recorded file back, or remove "
            f"{manifest_path} if the change is meant, and run again"
        )


def tensor_digests(directory: Path, manifest_path: Path | None) -> dict[str, str]:
    """{tensor: sha256} of a donor, from its record after a look at its files; without one all weights are read.

    Raises UserError where a file is not the recorded one, or where the weights hold NaN or infinity.
    """
    if manifest_path is None:
        records = record_files(sorted(directory.glob("*.safetensors")))
    else:
        records = read_json(manifest_path)["files"]
        check_still_recorded(directory, records, manifest_path)
    return {name: digest for record in records for name, digest in record.get("tensors", {}).items()}


@dataclass(frozen=True)
class Donor:
    """One of the two models that the graft was made from."""

    role: str
    name: str
    revision: str | None
    files: list[tuple[str, int, str]]

    @property
    def num_bytes(self) -> int:
        return sum(num_bytes for _, num_bytes, _ in self.files)


def read_donor(path: Path) -> Donor:
    """A donor's manifest."""
    value, where = read_json(path), str(path)
    source = require(value, "source", dict, where)
    name = source.get("id") or Path(source.get("path") or require(value, "dir", str, where)).name
    files = [
        (
            require(entry, "name", str, f"{where}: files"),
            require(entry, "num_bytes", int, f"{where}: files"),
            require(entry, "sha256", str, f"{where}: files"),
        )
        for entry in require(value, "files", list, where)
    ]
    revision = source.get("revision")
    return Donor(require(value, "role", str, where), str(name), str(revision) if revision else None, files)
