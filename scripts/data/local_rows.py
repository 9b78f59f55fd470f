"""The rows of a .jsonl of the user's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.input_files import read_input_bytes
from scripts.common.json_text import json_value
from scripts.data.rows import Row, standard_row
from scripts.data.sources import Source, chosen_rows


def read_local(source: Source, seed: int) -> Iterator[Row]:
    """The chosen rows of a .jsonl."""
    path = Path(source.name)
    lines = read_input_bytes(path, "a .jsonl of training rows", "check the path").splitlines()
    if not lines:
        raise UserError(f"source {source.text!r}: empty; expected at least one row; check the file")
    for index in chosen_rows(len(lines), source.num_wanted, seed, f"source {source.text!r}"):
        row = parse_line(lines[index], f"{path}, row {index + 1}")
        yield standard_row(row["messages"], local_images(row, path.parent))


def parse_line(line: bytes, place: str) -> dict[str, Any]:
    """One row of the file; raises UserError naming its place when it is not JSON or has no messages."""
    try:
        row = json_value(line)
    except ValueError as error:
        raise UserError(f"{place}: not valid JSON ({error}); write one JSON object per line") from None
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise UserError(
            f'{place}: no "messages" found; expected {{"messages": [{{"role": ..., "content": ...}}, ...], '
            '"images": [path, ...]}; convert the rows'
        )
    return row


def local_images(row: dict[str, Any], directory: Path) -> list[str]:
    """Absolute paths of a row's pictures. Whether they exist, check_dataset.py finds out for all rows."""
    images = row.get("images") or []
    images = images if isinstance(images, list) else [images]
    return [str((directory / image).absolute()) if isinstance(image, str) else image for image in images]
