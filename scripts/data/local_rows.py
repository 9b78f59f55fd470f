"""The rows of a user's file, in the form that ms-swift trains on, each with its line."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.input_files import file_fault
from scripts.data.addresses import is_address
from scripts.data.row_files import RowFile, RowProblem, open_rows
from scripts.data.rows import Row, standard_row
from scripts.data.sources import Source, chosen_rows
from scripts.data.swift_form import KEPT_KEYS, SwiftForm

# A file of rows that have these keys alone, and such turns, is in ms-swift's own form; ms-swift, which takes ten seconds
# to start, is not asked then.
_OWN_KEYS = {"messages", "images"}
_OWN_MESSAGE_KEYS = {"role", "content"}
_OWN_ROLES = {"system", "user", "assistant"}
# A picture itself; no name of a file is so long and has neither dot nor hyphen.
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*")


@dataclass(frozen=True)
class TakenRow:
    """A row of a source, with its place there, or why it cannot be trained on."""

    place: int  # the line of a file, or the number of the row in a dataset, from 1
    row: Row | RowProblem


def read_local(source: Source, seed: int, ignored_keys: Collection[str] = ()) -> Iterator[TakenRow]:
    """The chosen rows of a file. Whether their pictures exist, check_dataset.py finds out for all rows."""
    path = Path(source.name)
    rows = open_rows(path)
    form = swift_form(rows, ignored_keys)
    for index in chosen_rows(len(rows), source.num_wanted, seed, f"source {source.text!r}"):
        try:
            row = rows.row(index)
            values = form.standard(row) if form else {key: row[key] for key in row.keys() & _OWN_KEYS}
            images = [local_picture(image, path.parent) for image in _pictures(values)]
            taken = standard_row(
                values.get("messages") or [], images, {key: values[key] for key in KEPT_KEYS if key in values}
            )
            yield TakenRow(rows.line_of(index), taken)
        except RowProblem as error:
            yield TakenRow(rows.line_of(index), error)


def swift_form(rows: RowFile, ignored_keys: Collection[str]) -> SwiftForm | None:
    """How ms-swift reads the rows of this file; None where they are in its own form already, but for keys to be ignored."""
    columns: dict[str, None] = {}
    is_own = True
    for index in range(len(rows)):
        try:
            row = rows.row(index)
        except RowProblem:
            continue
        columns |= dict.fromkeys(row)
        is_own = is_own and _is_own_form(row, ignored_keys)
    return None if is_own else SwiftForm(columns, ignored_keys)


def _is_own_form(row: Mapping[str, Any], ignored_keys: Collection[str]) -> bool:
    messages = row.get("messages")
    return (
        row.keys() - _OWN_KEYS <= set(ignored_keys)
        and isinstance(messages, list)
        and bool(messages)
        and all(
            isinstance(message, dict)
            and message.keys() == _OWN_MESSAGE_KEYS
            and message["role"] in _OWN_ROLES
            and isinstance(message["content"], str)
            for message in messages
        )
    )


def _pictures(values: Mapping[str, Any]) -> list[Any]:
    images = values.get("images") or []
    return images if isinstance(images, list) else [images]


def local_picture(image: Any, directory: Path) -> Any:
    """A picture of a row: its absolute path, its address, or {"bytes": base64}."""
    if isinstance(image, Mapping) and image.keys() <= {"bytes", "path"}:
        if image.get("bytes"):
            return {"bytes": image["bytes"]}
        image = image.get("path")
    if not isinstance(image, str) or is_address(image):
        return image
    path = (directory / image).absolute()
    if image.startswith("data:") or (file_fault(path) and _BASE64.fullmatch(image)):
        return {"bytes": image}
    return str(path)
