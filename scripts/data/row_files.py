"""The rows of a user's file, each with its line: .jsonl, .json or .csv, read by the rules of ms-swift's loader.

ms-swift reads these files through the library `datasets`, which guesses types (a column of dates becomes numbers of
seconds) and knows no lines. Here each row keeps the words that the user wrote. What both agree on: empty lines count for
nothing, lines end with LF or CRLF, a byte order mark is skipped, a JSON file may be one array, the cells of a .csv are texts.
"""

import csv
import io
import json
import mmap
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.input_files import read_input_text, require_file
from scripts.common.json_text import json_value

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EXPECTED, _REMEDY = "a .jsonl, .json or .csv of training rows", "check the path"
# Longer than any conversation; Python's own limit of a cell is 131,072 characters.
MAX_CELL_CHARACTERS = 1 << 27


class RowProblem(ValueError):
    """Why a row cannot be trained on, in one line."""


class RowFile(ABC):
    """The rows of one file, in order. A row is parsed when it is asked for, so that a large file needs little memory."""

    def __init__(self) -> None:
        self._lines = array("Q")  # in which each row begins, from 1

    def __len__(self) -> int:
        return len(self._lines)

    def line_of(self, index: int) -> int:
        """The line of the file, from 1, in which a row begins."""
        return self._lines[index]

    @abstractmethod
    def row(self, index: int) -> dict[str, Any]:
        """A row's keys and values; raises RowProblem where there is none to be read."""


def _section(text: str | bytes) -> dict[str, Any]:
    try:
        value = json_value(text)
    except ValueError as error:
        raise RowProblem(f"not valid JSON ({error}); write one JSON object per line") from None
    if not isinstance(value, dict):
        raise RowProblem(f"{type(value).__name__} found; expected one JSON object per line")
    return value


class JsonLines(RowFile):
    """One JSON object a line. The file stays on the disk; what is kept is where its lines begin."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._offsets = array("Q")
        with open(path, "rb") as file:
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            offset = 0
            for number, line in enumerate(file, start=1):
                start = offset + len(BYTE_ORDER_MARK) * (number == 1 and line.startswith(BYTE_ORDER_MARK))
                offset += len(line)
                if self._content[start:offset].strip():
                    self._offsets.append(start)
                    self._lines.append(number)

    def row(self, index: int) -> dict[str, Any]:
        self._content.seek(self._offsets[index])
        line = self._content.readline()
        if line.startswith(BYTE_ORDER_MARK):
            raise RowProblem("a byte order mark found inside the file; expected one only at its beginning; remove it")
        return _section(line)


class JsonArray(RowFile):
    """One JSON array of objects."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._text = read_input_text(path, _EXPECTED, _REMEDY).removeprefix("\ufeff")
        self._ends, self._starts = array("Q"), array("Q")
        line, seen = 1, 0
        for start, end in _elements(self._text, path):
            line += self._text.count("\n", seen, start)
            seen = start
            self._starts.append(start)
            self._ends.append(end)
            self._lines.append(line)

    def row(self, index: int) -> dict[str, Any]:
        return _section(self._text[self._starts[index] : self._ends[index]])


def _elements(text: str, path: Path) -> Iterator[tuple[int, int]]:
    """Where each element of the array begins and ends. Raises UserError with the line where it is no array."""
    decoder = json.JSONDecoder()

    def past_spaces(position: int) -> int:
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        return position

    def fault(position: int, expected: str) -> UserError:
        line = text.count("\n", 0, position) + 1
        found = repr(text[position : position + 20]) if position < len(text) else "the end of the file"
        return UserError(f"{path}, line {line}: {found} found; expected {expected}; correct the file")

    position = past_spaces(past_spaces(0) + 1)
    while text[position : position + 1] != "]":
        try:
            _, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise fault(error.pos, f"a row of the JSON array ({error.msg})") from None
        except RecursionError:
            raise fault(position, "a row of fewer sections within each other") from None
        yield position, end
        position = past_spaces(end)
        if text[position : position + 1] == ",":
            position = past_spaces(position + 1)
        elif text[position : position + 1] != "]":
            raise fault(position, "a comma or the end of the JSON array")
    if (rest := past_spaces(position + 1)) < len(text):
        raise fault(rest, "nothing after the JSON array")


class CsvTable(RowFile):
    """A table with the names of its columns in the first line. An empty cell is an empty text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        text = read_input_text(path, _EXPECTED, _REMEDY).removeprefix("\ufeff")
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        self._rows: list[list[str]] = []
        line = 1
        try:
            self._names = next(reader, [])
            for cells in reader:
                first, line = line + 1, reader.line_num
                if cells:
                    self._rows.append(cells)
                    self._lines.append(first)
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: no table of .csv ({error}); correct the file") from None
        if twice := [name for name in self._names if self._names.count(name) > 1]:
            raise UserError(f"{path}, line 1: column {twice[0]!r} found twice; expected each once; rename one")

    def row(self, index: int) -> dict[str, Any]:
        cells = self._rows[index]
        if len(cells) != len(self._names):
            raise RowProblem(
                f"{len(cells)} cells found; expected {len(self._names)}, as in the first line; put texts with commas "
                "in double quotes"
            )
        return dict(zip(self._names, cells, strict=True))


def open_rows(path: Path) -> RowFile:
    """The rows of a file; raises UserError where there is no such file, or none that holds rows."""
    require_file(path, _EXPECTED, _REMEDY)
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: empty; expected at least one row; check the file")
        rows = CsvTable(path) if path.suffix == ".csv" else JsonArray(path) if _is_array(path) else JsonLines(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {_EXPECTED}; {_REMEDY}") from None
    if not len(rows):
        raise UserError(f"{path}: no rows found; expected at least one; check the file")
    return rows


def _is_array(path: Path) -> bool:
    with open(path, "rb") as file:
        for line in file:
            if text := line.removeprefix(BYTE_ORDER_MARK).strip():
                return text.startswith(b"[")
    return False
