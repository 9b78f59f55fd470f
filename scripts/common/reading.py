"""Reads tables and JSON of our own making field by field; each error names the file, the key and what to do."""

import csv
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.common.input_files import read_input_text, read_json
from scripts.common.settings import settings_from

T = TypeVar("T")
SEAL_KEY = "content_sha256"


def seal_of(value: Any) -> str:
    """sha256 of a JSON value, however it is laid out."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object with its own sha256, by which `read_sealed` notices a later edit."""
    write_json_atomically(path, value | {SEAL_KEY: seal_of(value)})


def read_sealed(cls: type[T], path: Path, *, takes_nan: bool = False) -> T:
    """What `write_sealed` wrote, as `read_object` reads it; UserError where it is no longer that."""
    value = read_json(path, takes_nan=takes_nan)
    stated = value.pop(SEAL_KEY, "nothing") if isinstance(value, dict) else "nothing"
    made = object_from(cls, value, path)
    if (found := seal_of(value)) != stated:
        raise UserError(
            f"{path}: edited by hand, or of another version: its content has sha256 {found}, its {SEAL_KEY} says {stated}; "
            "bring the file back as it was written, or remove it and run the step that makes it"
        )
    return made


def read_object(cls: type[T], path: Path) -> T:
    """A JSON file as the dataclass that it was written from; UserError naming the file and the key otherwise."""
    return object_from(cls, read_json(path), path)


def object_from(cls: type[T], value: Any, path: Path) -> T:
    """The same of what was read from `path`."""
    try:
        return settings_from(cls, value)
    except UserError as error:
        raise UserError(f"{path}: {error}; make this file again with the program of this version") from None


def require(value: Any, key: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """`value[key]` if it is of one of `kinds`; otherwise UserError with `where`."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
    remedy = "make this file again with the program of this version"
    if not isinstance(value, dict) or key not in value:
        raise UserError(f"{where}: no `{key}` found; expected {names}; {remedy}")
    found = value[key]
    if not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
        raise UserError(f"{where}: `{key}` is {found!r}; expected {names}; {remedy}")
    return found


def numbered_lines(path: Path, kind: str, *, written_by_a_program: bool = True) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file; UserError when it is absent, no UTF-8, empty, or its last line has no end."""
    text = read_input_text(path, kind, "run the rule that makes it")
    if not text.strip():
        raise UserError(f"{path}: empty; expected {kind}; make it again")
    if written_by_a_program and not text.endswith("\n"):
        raise UserError(f"{path}: its last line has no end; expected {kind}; make it again, it was probably cut off")
    # Not splitlines(): a question may hold U+2028 and the like, which JSON leaves as they are.
    yield from ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def read_table(path: Path, columns: tuple[str, ...], delimiter: str, kind: str) -> list[dict[str, str]]:
    """Rows of a delimited file that has at least `columns`; UserError naming the row that is cut short."""
    lines = [line for _, line in numbered_lines(path, kind)]
    try:
        header, *records = csv.reader(lines, delimiter=delimiter)
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error}); expected {kind}; make it again") from None
    if missing := [name for name in columns if name not in header]:
        raise UserError(
            f"{path}: no column `{missing[0]}` found (there are: {', '.join(map(ascii, header))}); "
            f"expected {kind}; make it again with the program of this version"
        )
    rows = []
    for number, cells in enumerate(records, start=2):
        if len(cells) != len(header):
            raise UserError(
                f"{path}: row {number} has {len(cells)} fields; expected {len(header)}; "
                "make it again, it was probably cut off"
            )
        rows.append(dict(zip(header, cells, strict=True)))
    return rows


def parse_number(row: dict[str, str], column: str, kind: type, where: str) -> Any:
    try:
        value = kind(row[column])
        is_sound = math.isfinite(value) and value >= 0
    except (ValueError, OverflowError):
        is_sound = False
    if not is_sound:
        raise UserError(f"{where}: {column} is {row[column]!r:.100}; expected a number from 0 on; make it again")
    return value
