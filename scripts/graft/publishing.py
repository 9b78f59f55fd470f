"""Puts a finished graft in its place: the index and the ledger, without which there is no graft, go first and come last."""

import os
from collections.abc import Sequence
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import fsync_directory, write_bytes_atomically
from scripts.common.logger import log
from scripts.donors.safetensors_files import INDEX_NAME, SHARD_PATTERN, SINGLE_NAME
from scripts.graft.fidelity import FIDELITY_NAME
from scripts.graft.file_sharing import share_file
from scripts.graft.ledger import LEDGER_NAME
from scripts.graft.shard_layout import Shard
from scripts.graft.shard_writer import FILE_MODE
from scripts.graft.travelling_files import TRAVELLING_PATTERNS


def write_small_file(path: Path, content: bytes) -> None:
    """Writes a small file, synced, that others may read."""
    try:
        write_bytes_atomically(path, content)
        path.chmod(FILE_MODE)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot write there ({error.strerror}); make room, or choose another results directory"
        ) from error


def publish(staging_dir: Path, output_dir: Path) -> None:
    """Moves the finished files to their place, index and ledger last, and removes what an earlier graft left.

    Its fidelity.json too, which was about that one.
    """
    names = {path.name for path in staging_dir.iterdir()}
    markers = [INDEX_NAME, LEDGER_NAME]
    for name in (FIDELITY_NAME, *reversed(markers)):
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
    """Links the mirrored shards to their donor's files where the file systems allow it; returns the others."""
    left, reasons = [], set()
    for shard in shards:
        if shard.mirrored_path is None:
            left.append(shard)
        elif reason := share_file(shard.mirrored_path, directory / shard.file_name, FILE_MODE):
            left.append(shard)
            reasons.add(reason)
    for reason in sorted(reasons):
        log(f"graft: a donor's shards cannot be linked here ({reason}); they are copied")
    return left
