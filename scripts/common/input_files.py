"""Opens files that somebody else may have put there: a directory, a pipe or a loop of links in their place is one error."""

import os
import stat
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.json_text import json_value

NOT_FOUND = "not found"


def file_fault(path: Path | str) -> str | None:
    """Why there is no file to read at `path`; None where there is one. A pipe is not opened: nobody may ever write to it."""
    try:
        os.fspath(path).encode()
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return NOT_FOUND
    except OSError as error:
        return f"cannot be reached ({error.strerror})"
    except ValueError:  # a NUL, half a character, or bytes that are no UTF-8
        return "has a name that no file can have, or none in UTF-8"
    if stat.S_ISDIR(mode):
        return "is a directory"
    return None if stat.S_ISREG(mode) else "is a pipe, a socket or a device"


def require_file(path: Path, expected: str, remedy: str) -> None:
    """Raises UserError unless there is a file to read at `path`."""
    if fault := file_fault(path):
        raise UserError(f"{path}: {fault}; expected {expected}; {remedy}")


def read_input_bytes(path: Path, expected: str, remedy: str) -> bytes:
    """The whole of a file; UserError where there is none that can be read."""
    require_file(path, expected, remedy)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {expected}; {remedy}") from None


def read_input_text(path: Path, expected: str, remedy: str) -> str:
    """The whole of a file of UTF-8 text, line ends as they are; UserError where there is none that can be read."""
    try:
        return read_input_bytes(path, expected, remedy).decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); expected {expected}; {remedy}"
        ) from None


def read_json(path: Path, *, takes_nan: bool = False) -> Any:
    """The value of a JSON file; UserError naming the file where there is none, or where it is no JSON (`json_value`)."""
    text = read_input_text(path, "a JSON file there", "fetch or make it again")
    try:
        return json_value(text, takes_nan=takes_nan)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch or make it again, it was probably cut off") from None


def read_section(path: Path) -> dict[str, Any]:
    """A JSON file that holds a section of keys; UserError where it holds something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: {type(value).__name__} found; expected a section of keys; fetch or make it again")
    return value
