"""Files that are either whole or absent: temporary name, fsync, rename, fsync of the directory."""

import errno
import glob
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO


def fsync_file(path: Path) -> None:
    """Makes a file's content survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(directory: Path) -> None:
    """Makes renames in `directory` survive a power cut."""
    fsync_file(directory)


def move_into_place(source: Path, path: Path) -> None:
    """Gives a finished file its name, within one file system; what had that name before is replaced."""
    fsync_file(source)
    if path.is_dir():  # os.replace would name the temporary file
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    os.replace(source, path)
    fsync_directory(path.parent)


@contextmanager
def temporary_for(path: Path, *, is_synced: bool = True) -> Iterator[Path]:
    """Gives a path beside `path`, to be written; at the end that file takes the name `path`, on an error it vanishes.

    `is_synced=False` is for many small files that are checked later: a power cut may leave one of them empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if is_synced:
            move_into_place(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(output: Path) -> None:
    """Removes temporary files that killed programs left beside an output, or in it; nobody may be writing it."""
    left = [*output.parent.glob(f".{glob.escape(output.name)}.*.tmp"), *output.glob(".*.tmp")]
    for path in left:
        # With a process id, as `temporary_for` names them; another one is the user's.
        if path.is_file() and path.stem.rpartition(".")[2].isdigit():
            path.unlink(missing_ok=True)


@contextmanager
def open_atomically(path: Path) -> Iterator[TextIO]:
    """Gives a text file to write; at the end it takes the name `path`, on an error it vanishes."""
    with temporary_for(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        yield file


@contextmanager
def open_binary_atomically(path: Path) -> Iterator[BinaryIO]:
    """The same for bytes."""
    with temporary_for(path) as temporary, open(temporary, "wb") as file:
        yield file


def write_text_atomically(path: Path, text: str) -> None:
    """Writes `text` to `path` so that a reader sees the old file or the new one, never a part."""
    with open_atomically(path) as file:
        file.write(text)


def write_bytes_atomically(path: Path, content: bytes, *, is_synced: bool = True) -> None:
    """The same for bytes; `is_synced` as in `temporary_for`."""
    with temporary_for(path, is_synced=is_synced) as temporary:
        temporary.write_bytes(content)


def write_json_atomically(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    write_text_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256_of_file(path: Path) -> str:
    """sha256 of the file's bytes, as lower-case hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of_file(path: Path) -> str:
    """md5 of the file's bytes, by which VLMEvalKit identifies benchmarks; no protection against tampering."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def read_if_whole(path: Path) -> dict[str, Any]:
    """A small JSON object that another process writes, or {} while it is not there."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
