"""Files of one JSON object a line, which are only appended to. A kill may cut the last line off."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from scripts.common.reading import object_from

T = TypeVar("T")


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, none where it is absent; lines that were cut off are skipped."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(value, dict):
                yield value


def read_objects(cls: type[T], path: Path) -> list[T]:
    """The lines as objects of the dataclass that they were written from; UserError naming the file and the key otherwise."""
    return [object_from(cls, line, path) for line in read_lines(path)]
