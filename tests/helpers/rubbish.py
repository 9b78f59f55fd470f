"""What may stand in the place of a file, or in a file of JSON, and is none."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def _pipe(path: Path) -> None:
    os.mkfifo(path)  # nobody writes to it: whoever opens it waits for ever


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _content(content: bytes) -> Callable[[Path], None]:
    return lambda path: _write(path, content)


# Whatever the file is to hold.
NO_FILE: dict[str, Callable[[Path], None]] = {
    "a directory": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("gone"),
    "a pipe": _pipe,
}

# Where it is to hold text.
NO_TEXT: dict[str, Callable[[Path], None]] = {"bytes that are no text": _content(b"\xff\xfe\x00\x9f" * 9)}

# Where it is to hold JSON.
NO_JSON: dict[str, Callable[[Path], None]] = {
    "JSON a hundred thousand deep": _content(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "JSON two hundred deep": _content(b'{"a":' * 200 + b"1" + b"}" * 200),
    "a number of five thousand digits": _content(b'{"a": ' + b"1" * 5000 + b"}"),
    "a number of four hundred digits": _content(b'{"a": ' + b"1" * 400 + b"}"),
    "a number beyond all floats": _content(b'{"a": 1e999}'),
    "NaN": _content(b'{"a": NaN}'),
    "half a character": _content(b'{"a": "\\ud83d"}'),
    "a key twice": _content(b'{"a": 1, "a": 2}'),
}

# Sound JSON of another kind than a section of keys.
NO_SECTION: dict[str, Callable[[Path], None]] = {
    "a list": _content(b"[1]"),
    "a text": _content(b'"config"'),
    "null": _content(b"null"),
}


def put(kind: str, path: Path) -> None:
    """Puts rubbish of this kind in the place of what is at `path`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    (NO_FILE | NO_TEXT | NO_JSON | NO_SECTION)[kind](path)
