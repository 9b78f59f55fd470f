"""Puts a finished graft in its place: what stands for it goes first and comes last."""

import os
from collections.abc import Sequence
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import fsync_directory
from scripts.common.logger import log
from scripts.common.safetensors_files import INDEX_NAME, SHARD_PATTERN, SINGLE_NAME
from scripts.graft.file_sharing import share_file
from scripts.graft.ledger import LEDGER_NAME
from scripts.graft.shard_layout import Shard
from scripts.graft.shard_writer import FILE_MODE
from scripts.graft.travelling_files import TRAVELLING_PATTERNS


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


def share_shards(shards: Sequence[Shard], directory: Path) -> list[Shard]:
    """Links the mirrored shards to their donor's files where the file systems allow it; returns those that are left."""
    left, reasons = [], set()
    for shard in shards:
        if shard.mirrored_path is None:
            left.append(shard)
        elif reason := share_file(shard.mirrored_path, directory / shard.file_name, FILE_MODE):
            left.append(shard)
            reasons.add(reason)
    for reason in sorted(reasons):
        log(f"graft: shards that are a donor's as they stand cannot be linked here ({reason}); they are copied")
    return left
