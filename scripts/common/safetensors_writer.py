"""Writing a sharded safetensors checkpoint as a stream: bytes go from file to file slab by slab, whatever their amount.

Each tensor is read (or made) once, by one of a few threads, and in that pass hashed, searched for NaN and infinity, and
written at its place. A tensor without a place is read for its hash alone. So memory is a few slabs, and the hash is of
exactly the bytes that were written. Why not copy_file_range: the hash needs the bytes here anyway; what hash and search
cost beside a copy in the kernel is in benchmarks/results/graft.md.
"""

import hashlib
import json
import math
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.safetensors_files import DTYPE_BYTES, TensorOnDisk
from common.tensor_values import first_non_finite

# With 1 MiB and one thread a core the donors of benchmarks/graft.py took a fifth less CPU time than with 0.25 MiB and two
# threads a core (two runs each, memory touched before), the benchmark itself 4.1 instead of 4.3 s.
SLAB_BYTES = 1 << 20

# Hashing releases Python's lock; two threads at least, since one waits for the disk now and then.
_MIN_THREADS, _MAX_THREADS = 2, 16

# The kernel would otherwise collect gigabytes before it begins to write, and the final sync would wait for all of them.
_BYTES_BETWEEN_SYNCS = 256 << 20

# Copying to an address that lies 8 to 24 bytes behind its source, counted within a page, has a third of the usual speed
# (2.7 instead of 8 GB/s on an AMD EPYC; docs/log.md): the processor takes one for the other. A cache line more avoids it.
_PAGE_BYTES = mmap.PAGESIZE
_ALIAS_BYTES = 64

_FILE_MODE = 0o644


@dataclass(frozen=True)
class Place:
    """Where a tensor is written: `offset` counts from the start of the file."""

    file_name: str
    offset: int


@dataclass(frozen=True)
class StreamedTensor:
    """One tensor to pass through: read from `source`, or made by `make_slabs`.

    `name` is its name in the result, or empty: then it is read for its hash alone.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: TensorOnDisk | None
    make_slabs: Callable[[], Iterable[bytes]] | None

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """One file of the checkpoint: its header, and where each tensor lies."""

    file_name: str
    header: bytes
    places: dict[str, Place]
    num_bytes: int


class _Stopped(Exception):
    """Another thread failed; this one gives up quietly."""


def lay_out_shards(tensors: Sequence[StreamedTensor], max_shard_bytes: int) -> list[Shard]:
    """Divides the tensors, in order, among files of at most `max_shard_bytes` (a larger tensor has its own file)."""
    groups: list[list[StreamedTensor]] = []
    group_bytes = 0
    for tensor in tensors:
        if not groups or (groups[-1] and group_bytes + tensor.num_bytes > max_shard_bytes):
            groups.append([])
            group_bytes = 0
        groups[-1].append(tensor)
        group_bytes += tensor.num_bytes
    return [
        _lay_out_shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", group)
        for number, group in enumerate(groups, start=1)
    ]


def _lay_out_shard(file_name: str, tensors: Sequence[StreamedTensor]) -> Shard:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without it
    position, offsets = 0, {}
    # Wide elements first: then each tensor is aligned to its element, as readers that map the file expect.
    for tensor in sorted(tensors, key=lambda tensor: -DTYPE_BYTES[tensor.dtype]):
        end = position + tensor.num_bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        offsets[tensor.name] = position
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data_start = 8 + len(text)
    places = {name: Place(file_name, data_start + offset) for name, offset in offsets.items()}
    return Shard(file_name, struct.pack("<Q", len(text)) + text, places, data_start + position)


def checkpoint_index(tensors: Sequence[StreamedTensor], shards: Sequence[Shard]) -> dict[str, object]:
    """The content of model.safetensors.index.json, with the metadata that transformers 5 writes."""
    return {
        "metadata": {
            "total_parameters": sum(math.prod(tensor.shape) for tensor in tensors),
            "total_size": sum(tensor.num_bytes for tensor in tensors),
        },
        "weight_map": {name: shard.file_name for shard in shards for name in sorted(shard.places)},
    }


def check_free_space(directory: Path, num_bytes: int) -> None:
    """Raises UserError when the file system of `directory` has not `num_bytes` left."""
    status = os.statvfs(directory)
    free_bytes = status.f_bavail * status.f_frsize
    if free_bytes < num_bytes:
        raise UserError(
            f"{directory}: {num_bytes:,} bytes are needed, {free_bytes:,} are free there; make room (an earlier result "
            "can be removed), or choose another results directory"
        )


class _Stream:
    """State shared by the threads of one `stream_tensors`."""

    def __init__(self, directory: Path, shards: Sequence[Shard], label: str) -> None:
        self.directory = directory
        self.label = label
        self.num_output_bytes = sum(shard.num_bytes for shard in shards)
        self.places = {name: place for shard in shards for name, place in shard.places.items()}
        self.remaining = {shard.file_name: len(shard.places) for shard in shards}
        self.targets: dict[str, int] = {}
        self.sources: dict[Path, int] = {}
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.local = threading.local()
        self.syncer = ThreadPoolExecutor(1, "sync")
        self.syncs: list[Future[None]] = []
        self.num_done_bytes = 0
        self.num_unsynced_bytes = 0

    def open_files(self, shards: Sequence[Shard], tensors: Sequence[StreamedTensor]) -> None:
        """Opens every source once and creates every shard with its header."""
        for tensor in tensors:
            if tensor.source and tensor.source.path not in self.sources:
                self.sources[tensor.source.path] = os.open(tensor.source.path, os.O_RDONLY)
        try:
            for shard in shards:
                path = self.directory / shard.file_name
                self.targets[shard.file_name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
                os.fchmod(self.targets[shard.file_name], _FILE_MODE)
                self.write(self.targets[shard.file_name], shard.header, 0)
        except OSError as error:
            raise self.write_error(error) from error

    def close_files(self) -> None:
        """Ends the syncing thread and closes everything."""
        self.syncer.shutdown(cancel_futures=self.stop.is_set())
        for descriptor in [*self.sources.values(), *self.targets.values()]:
            os.close(descriptor)

    def write_error(self, error: OSError) -> UserError:
        """What a failed write means to the user."""
        status = os.statvfs(self.directory)
        return UserError(
            f"{self.directory}: cannot write there ({error.strerror}); {self.num_output_bytes:,} bytes are needed, "
            f"{status.f_bavail * status.f_frsize:,} are free; make room, lift the limit (ulimit -f, quota), or choose "
            "another results directory"
        )

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """Writes all of `data` at `offset`."""
        view = memoryview(data)
        while view:
            num_written = os.pwrite(descriptor, view, offset)
            view, offset = view[num_written:], offset + num_written

    def read_slabs(self, source: TensorOnDisk, target_offset: int) -> Iterator[memoryview]:
        """The bytes of a tensor on disk, slab by slab, in a buffer that each thread uses again and again.

        `target_offset` is where they will be written: within a page they lie there in the buffer, too.
        """
        if not hasattr(self.local, "buffer"):
            self.local.buffer = mmap.mmap(-1, SLAB_BYTES + 2 * _PAGE_BYTES)
        descriptor, start = self.sources[source.path], source.offset
        begin = target_offset % _PAGE_BYTES
        if 0 < (target_offset - start) % _PAGE_BYTES < _ALIAS_BYTES:
            begin += _ALIAS_BYTES
        whole = memoryview(self.local.buffer)[begin : begin + SLAB_BYTES]
        position = 0
        while position < source.num_bytes:
            wanted = min(SLAB_BYTES, source.num_bytes - position)
            try:
                num_read = os.preadv(descriptor, [whole[:wanted]], start + position)
            except OSError as error:
                raise UserError(
                    f"{source.path}: cannot be read at tensor {source.name} ({error.strerror}); check the disk, or "
                    "fetch this file again"
                ) from error
            if num_read % DTYPE_BYTES[source.dtype]:  # a read may end early, but elements are taken whole
                num_read -= num_read % DTYPE_BYTES[source.dtype]
            if num_read == 0:
                raise UserError(
                    f"{source.path}: ends inside tensor {source.name}, though its header places it there; the file "
                    "changed while it was read; fetch it again"
                )
            yield whole[:num_read]
            position += num_read

    def pass_through(self, tensor: StreamedTensor) -> str:
        """Reads or makes one tensor, checks, writes and hashes it; returns its sha256."""
        digest = hashlib.sha256()
        place = self.places[tensor.name] if tensor.name else None
        position = 0
        slabs: Iterable[bytes | memoryview] = ()
        if tensor.source:
            slabs = self.read_slabs(tensor.source, place.offset if place else tensor.source.offset)
        elif tensor.make_slabs:
            slabs = tensor.make_slabs()
        for slab in slabs:
            if self.stop.is_set():
                raise _Stopped
            digest.update(slab)
            if tensor.source and (index := first_non_finite(slab, tensor.dtype)) is not None:
                raise UserError(
                    f"{tensor.source.path}: tensor {tensor.source.name} holds NaN or infinity, first at index "
                    f"{position // DTYPE_BYTES[tensor.dtype] + index} of its values; expected finite weights; fetch "
                    "this donor again, or take another revision of it"
                )
            if place:
                try:
                    self.write(self.targets[place.file_name], slab, place.offset + position)
                except OSError as error:
                    raise self.write_error(error) from error
            position += len(slab)
            self.account(len(slab), self.targets[place.file_name] if place else None)
        if place:
            self.finish_tensor(place.file_name)
        return digest.hexdigest()

    def account(self, num_bytes: int, target: int | None) -> None:
        """Counts progress and lets the kernel write behind our back from time to time."""
        with self.lock:
            self.num_done_bytes += num_bytes
            if target is None:
                return
            self.num_unsynced_bytes += num_bytes
            if self.num_unsynced_bytes >= _BYTES_BETWEEN_SYNCS:
                self.num_unsynced_bytes = 0
                self.syncs.append(self.syncer.submit(os.fdatasync, target))

    def finish_tensor(self, file_name: str) -> None:
        """Syncs a shard as soon as its last tensor is written, while others are still being copied."""
        with self.lock:
            self.remaining[file_name] -= 1
            if self.remaining[file_name] == 0:
                self.syncs.append(self.syncer.submit(os.fsync, self.targets[file_name]))

    def report(self, num_total_bytes: int, started_at: float) -> None:
        """One line of progress on stderr."""
        elapsed_s = max(time.monotonic() - started_at, 1e-9)
        rate = self.num_done_bytes / elapsed_s
        left_s = (num_total_bytes - self.num_done_bytes) / rate if rate else math.inf
        print(
            f"{self.label}: {self.num_done_bytes / 1e9:.2f} of {num_total_bytes / 1e9:.2f} GB, {rate / 1e6:.0f} MB/s, "
            f"{left_s:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def stream_tensors(
    tensors: Sequence[StreamedTensor],
    shards: Sequence[Shard],
    directory: Path,
    label: str,
    report_interval_s: float = 1.0,
) -> list[str]:
    """Writes the shards into `directory`, synced, and returns the sha256 of each tensor.

    A file that exists there already is an error; on any error the caller removes `directory`.
    """
    stream = _Stream(directory, shards, label)
    num_total_bytes = sum(tensor.num_bytes for tensor in tensors)
    started_at = time.monotonic()
    num_threads = min(max(len(os.sched_getaffinity(0)), _MIN_THREADS), _MAX_THREADS)
    workers = ThreadPoolExecutor(num_threads, "stream")
    try:
        stream.open_files(shards, tensors)
        # What is read for its hash alone comes last, while the kernel still writes.
        order = sorted(range(len(tensors)), key=lambda number: not tensors[number].name)
        by_number = {number: workers.submit(stream.pass_through, tensors[number]) for number in order}
        futures = [by_number[number] for number in range(len(tensors))]
        pending: set[Future[str]] = set(futures)
        while pending:
            done, pending = wait(pending, timeout=report_interval_s, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                stream.stop.set()
                workers.shutdown(cancel_futures=True)
                break
            if pending:
                stream.report(num_total_bytes, started_at)
        errors = [future.exception() for future in futures if future.done() and not future.cancelled()]
        for error in errors:
            if error is not None and not isinstance(error, _Stopped):
                raise error
        for sync in stream.syncs:
            try:
                sync.result()
            except OSError as error:
                raise stream.write_error(error) from error
        return [future.result() for future in futures]
    finally:
        stream.stop.set()
        workers.shutdown(cancel_futures=True)
        stream.close_files()
