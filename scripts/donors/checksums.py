"""Checksums of a donor's files and tensors: taken when the donor is fetched, and compared before it is grafted.

A donor is read once, when it is fetched; in that pass it is hashed and searched for NaN and infinity. The graft, which
moves 16 GB of it, takes the checksums from the manifest instead of reading everything again: weights whose size and time
are the recorded ones count as unchanged there, all other files are hashed again. Whoever loads a donor as a model hashes
all of it (`check_recorded_digests`).
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.common.input_files import require_file
from scripts.common.logger import log
from scripts.common.units import size
from scripts.donors.manifest import FileRecord, read_manifest
from scripts.donors.safetensors_files import DTYPE_BYTES, TensorOnDisk, read_shard
from scripts.donors.tensor_values import FLOAT_DTYPES, first_non_finite

# What a checkpoint needs to be loaded: weights, configurations, tokenizer, chat template. Not *.bin or *.gguf, which
# hold the same weights again.
NEEDED_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt")

NUM_FILES_AT_A_TIME = 2  # each on two threads; hashlib releases the interpreter's lock, and a disk seldom feeds more
BLOCK_BYTES = 8 << 20
SECONDS_BETWEEN_LINES = 10.0


@dataclass
class HashProgress:
    """Counts hashed bytes over all files and logs the count every few seconds."""

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
            log(f"checksums: {size(self.done_bytes)} of {size(self.total_bytes)}")


def needed_files(directory: Path) -> list[Path]:
    """The files of a checkpoint that are used, in order of their names.

    Raises UserError where one of those names is no file: a link whose target is gone would otherwise be passed over.
    """
    found = sorted(directory.iterdir())  # not glob, which finds nothing in a directory that may not be read
    paths = [path for path in found if any(fnmatchcase(path.name, pattern) for pattern in NEEDED_PATTERNS)]
    for path in paths:
        require_file(path, "a file of the donor", "bring the file back, or remove what is there")
    return paths


def blocks_of(path: Path, tensors: Sequence[TensorOnDisk]) -> Iterator[tuple[bytes, TensorOnDisk | None, int]]:
    """The bytes of a file in blocks: (block, the tensor it lies in or None, the block's position in that tensor)."""
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


def record_file(path: Path, progress: HashProgress) -> FileRecord:
    """Name, size, time and sha256 of one file, and the sha256 of each tensor of a safetensors file.

    Raises UserError where a tensor holds NaN or infinity, or a weight nothing but zeros.
    """
    status = path.stat()
    is_weights = path.suffix == ".safetensors"
    tensors = list(read_shard(path).values()) if is_weights else []
    file_digest = hashlib.sha256()
    digests = {tensor.name: hashlib.sha256() for tensor in tensors}
    zero_so_far = {tensor.name for tensor in tensors if tensor.name.endswith(".weight") and tensor.num_bytes}

    def hash_and_check(block: bytes, tensor: TensorOnDisk, position: int) -> None:
        digests[tensor.name].update(block)
        check_finite(block, tensor, position)
        if tensor.name in zero_so_far and block.count(0) < len(block):
            zero_so_far.remove(tensor.name)

    with ThreadPoolExecutor(1) as beside:  # the tensor's hash beside the file's
        for block, tensor, position in blocks_of(path, tensors):
            hashed = beside.submit(hash_and_check, block, tensor, position) if tensor else None
            file_digest.update(block)
            if hashed:
                hashed.result()
            progress.add(len(block))
    if zero_so_far:
        raise UserError(
            f"{path}: tensor {min(zero_so_far)} is zero throughout ({len(zero_so_far)} such), as after a download that was cut "
            "off; expected weights; fetch this donor again, or take another revision of it"
        )
    of_tensors = {name: digest.hexdigest() for name, digest in digests.items()} if is_weights else None
    return FileRecord(path.name, status.st_size, status.st_mtime_ns, file_digest.hexdigest(), of_tensors)


def record_files(paths: Sequence[Path]) -> list[FileRecord]:
    """The records of all files, in the order of `paths`."""
    progress = HashProgress(total_bytes=sum(path.stat().st_size for path in paths))
    with ThreadPoolExecutor(NUM_FILES_AT_A_TIME) as pool:
        return list(pool.map(lambda path: record_file(path, progress), paths))


def change_of(directory: Path, record: FileRecord) -> str | None:
    """How a file differs from its record, or None. Weights are hashed only where their time alone is another.

    People touch files to keep them from a cluster's purge; that changes nothing.
    """
    path = directory / record.name
    try:
        status = path.stat()
    except OSError:
        return "it is absent"
    if status.st_size != record.num_bytes:
        return f"{status.st_size} bytes found, {record.num_bytes} recorded"
    if status.st_mtime_ns == record.modified_ns and record.tensors is not None:
        return None
    found = sha256_of_file(path)
    return None if found == record.sha256 else f"sha256 {found} found, {record.sha256} recorded"


def _changed(path: Path, change: str, manifest_path: Path) -> UserError:
    return UserError(
        f"{path}: changed since {manifest_path} was written ({change}); bring the recorded file back, or remove "
        f"{manifest_path} if the change is meant, and run again"
    )


def check_still_recorded(directory: Path, records: Sequence[FileRecord], manifest_path: Path) -> None:
    """Raises UserError where a file is no longer the one that the manifest recorded, or is not recorded at all."""
    for record in records:
        if change := change_of(directory, record):
            raise _changed(directory / record.name, change, manifest_path)
    check_none_is_new(directory, {record.name for record in records}, manifest_path)


def check_none_is_new(directory: Path, recorded: Set[str], manifest_path: Path) -> None:
    """Raises UserError where the donor has a file that is used and that its manifest does not know."""
    for path in needed_files(directory):
        if path.name not in recorded:
            raise _changed(path, "it is not recorded", manifest_path)


def check_recorded_digests(directory: Path, digests: Mapping[str, str], manifest_path: Path) -> None:
    """Raises UserError where a donor is not the recorded one, byte for byte; `digests` are the sha256 known already, by name."""
    records = read_manifest(manifest_path).files
    check_none_is_new(directory, {record.name for record in records}, manifest_path)
    for record in records:
        path = directory / record.name
        if not path.is_file():
            raise _changed(path, "it is absent", manifest_path)
        if (found := digests.get(record.name) or sha256_of_file(path)) != record.sha256:
            raise _changed(path, f"sha256 {found} found, {record.sha256} recorded", manifest_path)


def tensor_digests(directory: Path, manifest_path: Path | None) -> dict[str, str]:
    """{tensor: sha256} of a donor: from its manifest, after its files were checked; without one all weights are read.

    Raises UserError where a file is not the recorded one, or where the weights hold NaN or infinity.
    """
    if manifest_path is None:
        records = record_files(sorted(directory.glob("*.safetensors")))
    else:
        records = read_manifest(manifest_path).files
        check_still_recorded(directory, records, manifest_path)
    return {name: digest for record in records for name, digest in (record.tensors or {}).items()}
