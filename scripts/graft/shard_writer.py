"""Writing the shards of a checkpoint as a stream: bytes go from file to file, whatever their amount.

What a donor has is moved by the kernel (copy_file_range) where it lies in the same place within a page, else through a
small buffer; what is new is made in slabs, and hashed as it is written. A few threads share the work, and the disk is
kept writing behind them.
"""

import errno
import hashlib
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from scripts.common.disk_space import free_bytes
from scripts.common.errors import UserError
from scripts.common.units import duration, size
from scripts.graft.shard_layout import OutputTensor, Shard

SLAB_BYTES = 1 << 20  # of new tensors

# Fits a processor's second cache. 1 GiB that lay 256 bytes off its source's position in a page took 0.4 to 0.7 s of CPU time
# through it and 0.8 to 1.2 s by copy_file_range, which then moves two parts for each page; in place 0.3 to 0.6 s (docs/log.md).
_BUFFER_BYTES = 256 << 10
_PAGE_BYTES = mmap.PAGESIZE

# Copied at a time; between two such parts a thread counts its progress and stops if another one failed.
_COPY_BYTES = 64 << 20

# Two threads at least, since one waits for the disk now and then.
_MIN_THREADS, _MAX_THREADS = 2, 16

# The kernel would otherwise collect gigabytes before it begins to write, and the final sync would wait for all of them.
_BYTES_BETWEEN_SYNCS = 256 << 20
FILE_MODE = 0o644

# The errors of a target that is full or may not grow. After any other error the buffer is tried instead of the kernel.
_TARGET_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_BAR_WIDTH = 30

_CLEAR_LINE = "\x1b[K"  # from the cursor to the end
_BACK_TO_START = _CLEAR_LINE + "\r"


@dataclass(frozen=True)
class _Copy:
    """A stretch of bytes that goes from a donor's file into a shard as it is."""

    source_path: Path
    source_offset: int
    file_name: str
    offset: int
    num_bytes: int


class _Stopped(Exception):
    """Another thread failed; this one stops without an error of its own."""


def check_free_space(directory: Path, num_bytes: int) -> None:
    """Raises UserError when the file system of `directory` has not `num_bytes` left."""
    if (free := free_bytes(directory)) < num_bytes:
        raise UserError(
            f"{directory}: {num_bytes:,} bytes are needed, {free:,} are free there; make room (an earlier result "
            "can be removed), or choose another results directory"
        )


def progress_line(label: str, num_done_bytes: int, num_total_bytes: int, elapsed_s: float) -> str:
    """A bar, how much, how fast, and how long it will take."""
    part = num_done_bytes / num_total_bytes if num_total_bytes else 1.0
    rate = num_done_bytes / max(elapsed_s, 1e-9)
    left = f"{duration((num_total_bytes - num_done_bytes) / rate)} left" if rate else "starting"
    bar = "#" * int(part * _BAR_WIDTH)
    return f"{label}: [{bar:-<{_BAR_WIDTH}}] {size(num_done_bytes)} of {size(num_total_bytes)}, {size(int(rate))}/s, {left}"


def _copies(tensors: Sequence[OutputTensor], shards: Sequence[Shard]) -> Iterator[_Copy]:
    """The stretches to copy: neighbours that stay neighbours are one stretch, long ones are divided."""
    by_name = {tensor.name: tensor for tensor in tensors}
    for shard in shards:
        stretches: list[_Copy] = []
        if shard.mirrored_path:
            stretches = [_Copy(shard.mirrored_path, 0, shard.file_name, 0, shard.num_bytes)]
        for name, offset in () if shard.mirrored_path else shard.offsets.items():
            if (source := by_name[name].source) is None:
                continue
            last = stretches[-1] if stretches else None
            if (
                last
                and (source.path, source.offset) == (last.source_path, last.source_offset + last.num_bytes)
                and offset == last.offset + last.num_bytes
            ):
                num_bytes = last.num_bytes + source.num_bytes
                stretches[-1] = _Copy(source.path, last.source_offset, shard.file_name, last.offset, num_bytes)
            else:
                stretches.append(_Copy(source.path, source.offset, shard.file_name, offset, source.num_bytes))
        for whole in stretches:
            for begin in range(0, whole.num_bytes, _COPY_BYTES):
                yield _Copy(
                    whole.source_path,
                    whole.source_offset + begin,
                    whole.file_name,
                    whole.offset + begin,
                    min(_COPY_BYTES, whole.num_bytes - begin),
                )


class _Stream:
    """State shared by the threads of one `write_shards`."""

    def __init__(self, directory: Path, shards: Sequence[Shard], label: str) -> None:
        self.directory = directory
        self.label = label
        self.num_output_bytes = sum(shard.num_bytes for shard in shards)
        self.places = {name: (shard.file_name, offset) for shard in shards for name, offset in shard.offsets.items()}
        self.targets: dict[str, int] = {}
        self.sources: dict[Path, int] = {}
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.local = threading.local()
        self.syncer = ThreadPoolExecutor(1, "sync")
        self.syncs: list[Future[None]] = []
        self.num_done_bytes = 0
        self.num_unsynced_bytes = 0
        self.digests: dict[str, str] = {}

    def open_files(self, shards: Sequence[Shard], copies: Sequence[_Copy]) -> None:
        """Opens every source once and creates every shard with its header."""
        for copy in copies:
            if copy.source_path not in self.sources:
                self.sources[copy.source_path] = os.open(copy.source_path, os.O_RDONLY)
        try:
            for shard in shards:
                path = self.directory / shard.file_name
                self.targets[shard.file_name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
                os.fchmod(self.targets[shard.file_name], FILE_MODE)
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
        return UserError(
            f"{self.directory}: cannot write there ({error.strerror}); {self.num_output_bytes:,} bytes are needed, "
            f"{free_bytes(self.directory):,} are free; make room, lift the limit (ulimit -f, quota), or choose "
            "another results directory"
        )

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> None:
        """Writes all of `data` at `offset`."""
        view = memoryview(data)
        while view:
            num_written = os.pwrite(descriptor, view, offset)
            view, offset = view[num_written:], offset + num_written

    def copy_shard(self, copies: Iterable[_Copy]) -> None:
        """Moves all stretches of one shard: two threads that write into one file wait for each other, and spin at that."""
        for copy in copies:
            self.copy(copy)

    def copy(self, copy: _Copy) -> None:
        """Moves one stretch."""
        if self.stop.is_set():
            raise _Stopped
        source, target = self.sources[copy.source_path], self.targets[copy.file_name]
        position = self.copy_in_kernel(copy, source, target)
        while position < copy.num_bytes:
            slab = self.read(copy, position, source)
            try:
                self.write(target, slab, copy.offset + position)
            except OSError as error:
                raise self.write_error(error) from error
            position += len(slab)
        self.account(copy.num_bytes, target)

    def copy_in_kernel(self, copy: _Copy, source: int, target: int) -> int:
        """Moves a stretch as far as the kernel will; returns how far it came."""
        position = 0
        if (copy.offset - copy.source_offset) % _PAGE_BYTES:
            return position
        try:
            while position < copy.num_bytes:
                left, begin, end = copy.num_bytes - position, copy.source_offset + position, copy.offset + position
                num_moved = os.copy_file_range(source, target, left, begin, end)
                if num_moved == 0:
                    break
                position += num_moved
        except OSError as error:
            if error.errno in _TARGET_ERRORS:
                raise self.write_error(error) from error
            # Not between these file systems, or a fault of either disk, which reading and writing tell apart.
        return position

    def read(self, copy: _Copy, position: int, source: int) -> memoryview:
        """The next part of a stretch, in this thread's buffer, at the position in a page that it will have in the shard."""
        if not hasattr(self.local, "buffer"):
            self.local.buffer = mmap.mmap(-1, _BUFFER_BYTES + _PAGE_BYTES)
        begin = (copy.offset + position) % _PAGE_BYTES
        num_wanted = min(_BUFFER_BYTES, copy.num_bytes - position)
        part = memoryview(self.local.buffer)[begin : begin + num_wanted]
        try:
            num_read = os.preadv(source, [part], copy.source_offset + position)
        except OSError as error:
            raise UserError(
                f"{copy.source_path}: cannot be read at byte {copy.source_offset + position} ({error.strerror}); check "
                "the disk, or fetch this file again"
            ) from error
        if not num_read:
            raise UserError(
                f"{copy.source_path}: ends at byte {copy.source_offset + position}, though its header places tensors "
                "behind it; the file changed while it was read; fetch it again"
            )
        return part[:num_read]

    def make(self, name: str, slabs: Iterable[bytes]) -> None:
        """Writes and hashes one new tensor."""
        digest = hashlib.sha256()
        file_name, offset = self.places[name]
        for slab in slabs:
            if self.stop.is_set():
                raise _Stopped
            digest.update(slab)
            try:
                self.write(self.targets[file_name], slab, offset)
            except OSError as error:
                raise self.write_error(error) from error
            offset += len(slab)
            self.account(len(slab), self.targets[file_name])
        self.digests[name] = digest.hexdigest()

    def account(self, num_bytes: int, target: int) -> None:
        """Counts progress and makes the kernel write in the background from time to time."""
        with self.lock:
            self.num_done_bytes += num_bytes
            self.num_unsynced_bytes += num_bytes
            if self.num_unsynced_bytes >= _BYTES_BETWEEN_SYNCS:
                self.num_unsynced_bytes = 0
                self.syncs.append(self.syncer.submit(os.fdatasync, target))

    def report(self, started_at: float) -> None:
        """The progress on stderr: one line that is written over on a terminal, a line each time in a log."""
        line = progress_line(self.label, self.num_done_bytes, self.num_output_bytes, time.monotonic() - started_at)
        print(line, file=sys.stderr, flush=True, end=_BACK_TO_START if sys.stderr.isatty() else "\n")

    def end_report(self) -> None:
        """Clears the progress line of a terminal."""
        if sys.stderr.isatty():
            print(_CLEAR_LINE, file=sys.stderr, flush=True, end="")


def write_shards(
    tensors: Sequence[OutputTensor],
    shards: Sequence[Shard],
    directory: Path,
    label: str,
    report_interval_s: float = 1.0,
) -> dict[str, str]:
    """Writes the shards into `directory`, synced, and returns the sha256 of each new tensor.

    A file that exists there already is an error; on any error the caller removes `directory`.
    """
    stream = _Stream(directory, shards, label)
    copies = list(_copies(tensors, shards))
    started_at = time.monotonic()
    num_threads = min(max(len(os.sched_getaffinity(0)), _MIN_THREADS), _MAX_THREADS)
    workers = ThreadPoolExecutor(num_threads, "stream")
    try:
        stream.open_files(shards, copies)
        of_shards = groupby(copies, key=lambda copy: copy.file_name)
        futures = [workers.submit(stream.copy_shard, list(of_shard)) for _, of_shard in of_shards]
        futures += [workers.submit(stream.make, t.name, t.make_slabs()) for t in tensors if t.make_slabs]
        pending: set[Future[None]] = set(futures)
        while pending:
            done, pending = wait(pending, timeout=report_interval_s, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                stream.stop.set()
                workers.shutdown(cancel_futures=True)
                break
            if pending:
                stream.report(started_at)
        errors = [future.exception() for future in futures if future.done() and not future.cancelled()]
        for error in errors:
            if error is not None and not isinstance(error, _Stopped):
                raise error
        try:
            for sync in [*stream.syncs, *(stream.syncer.submit(os.fsync, fd) for fd in stream.targets.values())]:
                sync.result()
        except OSError as error:
            raise stream.write_error(error) from error
        return stream.digests
    finally:
        stream.stop.set()
        workers.shutdown(cancel_futures=True)
        stream.close_files()
        stream.end_report()
