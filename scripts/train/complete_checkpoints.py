"""Which of the trainer's checkpoints count: those with `complete.json`, written when all their files are on the disk.

It has the sha256 of every file, and of the records of the training so far: what was changed since is neither gone on from
nor published.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from scripts.common.errors import UserError
from scripts.common.files import fsync_directory, fsync_file
from scripts.common.reading import read_sealed, write_sealed
from scripts.donors.model_files import COMPLETE_NAME

# hashlib lets other threads run; one reads and hashes about 1.5 GB a second.
NUM_READERS = 8


@dataclass(frozen=True)
class Content:
    """The first `num_bytes` of a file, which is all of it but for records, which grow."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Complete:
    """complete.json: what the files of a checkpoint are, by their paths there, and the training's records by theirs beside it."""

    training: str  # its signature, which names the directory that has the trainer's
    files: dict[str, Content]
    records: dict[str, Content]


def content_of(path: Path, num_bytes: int | None = None) -> Content:
    """Of the first `num_bytes`, or of the whole file; fewer where it is shorter."""
    digest, left = hashlib.sha256(), path.stat().st_size if num_bytes is None else num_bytes
    num_read = 0
    with open(path, "rb") as file:
        while block := file.read(min(left - num_read, 2**22)):
            digest.update(block)
            num_read += len(block)
    return Content(num_read, digest.hexdigest())


def contents_of(directory: Path, paths: Iterable[Path]) -> dict[str, Content]:
    listed = sorted(paths)
    with ThreadPoolExecutor(NUM_READERS) as pool:
        return dict(
            zip((os.path.relpath(path, directory) for path in listed), pool.map(content_of, listed), strict=True)
        )


def files_of(checkpoint_dir: Path) -> list[Path]:
    """All but complete.json, in the order of their names."""
    return sorted(path for path in checkpoint_dir.rglob("*") if path.is_file() and path.name != COMPLETE_NAME)


def contents_of_share(checkpoint_dir: Path, number: int, num_shares: int) -> dict[str, Content]:
    """Of every `num_shares`-th file: a rank's part of the reading, which for an 8B with its optimizer is 142 GB."""
    return contents_of(checkpoint_dir, files_of(checkpoint_dir)[number::num_shares])


def mark_complete(
    checkpoint_dir: Path, records: Iterable[Path] = (), known: Mapping[str, Content] = MappingProxyType({})
) -> None:
    """Syncs every file of the checkpoint to the disk, then writes complete.json; nobody writes the records meanwhile.

    Files that are not among the `known` contents are read: another node's directory listing may lag behind.
    """
    paths = files_of(checkpoint_dir)
    for path in paths:
        fsync_file(path)
    for directory in [path for path in checkpoint_dir.rglob("*") if path.is_dir()] + [checkpoint_dir]:
        fsync_directory(directory)
    fsync_directory(checkpoint_dir.parent)
    named = {os.path.relpath(path, checkpoint_dir): path for path in paths}
    read = contents_of(checkpoint_dir, [path for name, path in named.items() if name not in known])
    files = {name: known[name] if name in known else read[name] for name in named}
    complete = Complete(training_of(checkpoint_dir), files, contents_of(checkpoint_dir, records))
    write_sealed(checkpoint_dir / COMPLETE_NAME, asdict(complete))


def training_of(checkpoint_dir: Path) -> str:
    return checkpoint_dir.absolute().parents[1].name


def read_complete(checkpoint_dir: Path) -> Complete:
    """Raises UserError where complete.json is no longer what `mark_complete` wrote."""
    try:
        return read_sealed(Complete, checkpoint_dir / COMPLETE_NAME)
    except UserError as error:
        raise UserError(f"{error}; or {to_the_one_before(checkpoint_dir)}") from None


def to_the_one_before(checkpoint_dir: Path) -> str:
    return f"remove {checkpoint_dir} to go on from the checkpoint before"


def is_complete(checkpoint_dir: Path) -> bool:
    """Whether complete.json is there and every file that it names has its size."""
    try:
        complete = read_complete(checkpoint_dir)
        return all((checkpoint_dir / name).stat().st_size == file.num_bytes for name, file in complete.files.items())
    except (OSError, UserError):
        return False


def trainer_checkpoints(trainer_dir: Path) -> list[Path]:
    """The checkpoint-N directories, complete or not, in the order of N."""
    found = [path for path in trainer_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def step_of(checkpoint_dir: Path) -> int:
    return int(checkpoint_dir.name.removeprefix("checkpoint-"))


def last_complete(trainer_dir: Path) -> Path | None:
    complete = [path for path in trainer_checkpoints(trainer_dir) if is_complete(path)]
    return complete[-1] if complete else None


def remove_incomplete(trainer_dir: Path) -> list[Path]:
    """Removes checkpoints that a kill cut off, and returns them. Raises UserError for one that somebody changed."""
    removed = [path for path in trainer_checkpoints(trainer_dir) if not is_complete(path)]
    for path in removed:
        # A kill leaves no complete.json, or lacks files where a removal was cut off.
        if os.path.lexists(path / COMPLETE_NAME) and all((path / name).exists() for name in read_complete(path).files):
            check_unchanged(path)
    for path in removed:
        shutil.rmtree(path)
    return removed


def check_unchanged(checkpoint_dir: Path, *, is_last_start: bool = False) -> None:
    """Raises UserError where a file of a complete checkpoint, or a record, is not what it was when complete.json was written.

    Records that each start writes anew (begin.json) are compared where the checkpoint is of the last start.
    """
    complete = read_complete(checkpoint_dir)
    if complete.training != training_of(checkpoint_dir):
        raise UserError(
            f"{checkpoint_dir}: saved by the training {complete.training}, as {COMPLETE_NAME} says; expected one of "
            f"{training_of(checkpoint_dir)}, which has other settings or inputs; remove {checkpoint_dir.parent.parent}, and give "
            "the same command again"
        )
    _check(checkpoint_dir, complete.files, to_the_one_before(checkpoint_dir), may_have_grown=False)
    anew = f"remove {checkpoint_dir.parent.parent} to train from the first step"
    records = {
        name: content for name, content in complete.records.items() if is_last_start or Path(name).suffix == ".jsonl"
    }
    _check(checkpoint_dir, records, anew, may_have_grown=True)


def _check(directory: Path, expected: Mapping[str, Content], remedy: str, *, may_have_grown: bool) -> None:
    paths = [Path(os.path.normpath(directory / name)) for name in expected]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: not found; {COMPLETE_NAME} of {directory} names it; put it back, or {remedy}")
    with ThreadPoolExecutor(NUM_READERS) as pool:
        limits = [content.num_bytes if may_have_grown else None for content in expected.values()]
        found = pool.map(content_of, paths, limits)
        for path, content, now in zip(paths, expected.values(), found, strict=True):
            if now != content:
                raise UserError(
                    f"{path}: sha256 {now.sha256} of {now.num_bytes} bytes found, {content.sha256} of {content.num_bytes} "
                    f"expected by {COMPLETE_NAME} of {directory}: it was changed after it was saved; put it back, or {remedy}"
                )
