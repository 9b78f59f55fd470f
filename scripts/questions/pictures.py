"""The pictures of a benchmark's questions: the column `image` of its table, which holds them in base64."""

import ast
import base64
import binascii
import csv
import hashlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pandas

from scripts.common.errors import UserError

# VLMEvalKit takes a field of at most this length for the index of the question whose picture is meant
# (vlmeval/dataset/image_base.py, ImageBaseDataset.__init__).
LONGEST_REFERENCE = 64


def picture_field(pictures: Sequence[str]) -> str:
    """The field for these base64 pictures."""
    return pictures[0] if len(pictures) == 1 else repr(list(pictures)) if pictures else ""


def pictures_in(field: str, index: str, path: Path) -> list[str]:
    """The base64 pictures of a field: one, or a list as Python writes it. Raises UserError when it is broken."""
    try:
        pictures = [str(picture) for picture in ast.literal_eval(field)] if field.startswith("[") else [field]
        for picture in pictures:
            if not base64.b64decode(picture, validate=True):
                raise ValueError("empty")
    except (binascii.Error, ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise UserError(
            f"{path}: the picture of question {index} is not base64 ({error}); make the row again"
        ) from None
    return pictures


def resolved(field: str, index: str, fields: Mapping[str, str], path: Path) -> str:
    """The field itself, or that of the question that it refers to; `fields` are those of other questions by index."""
    if len(field) > LONGEST_REFERENCE:
        return field
    if not field:
        raise UserError(f"{path}: question {index} has no picture; expected one in base64; correct the row")
    if len(fields.get(field, "")) <= LONGEST_REFERENCE:
        raise UserError(
            f"{path}: question {index} refers to the picture of {field}, which has none; expected a picture in base64, or "
            "the index of a question that has one; correct the row"
        )
    return fields[field]


def pictures_of(table: pandas.DataFrame, path: Path) -> list[list[str]]:
    """The base64 pictures of each question, in the order of the rows; raises UserError naming a broken one."""
    fields = dict(zip(table["index"], table["image"], strict=True))
    return [
        pictures_in(resolved(field, index, fields, path), index, path) if field else []
        for index, field in fields.items()
    ]


def picture_sha256(pictures: Sequence[str]) -> str:
    """One fingerprint for the bytes of all pictures of a question."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(base64.b64decode(picture))
    return digest.hexdigest()


def read_pictures(path: Path, indices: Collection[str]) -> dict[str, list[bytes]]:
    """The encoded pictures of these questions. The table is read row by row: it may be larger than memory."""
    if not indices:
        return {}
    fields = _fields_of(path, indices)
    if missing := sorted(set(indices) - fields.keys()):
        raise UserError(
            f"{path}: no row with index {missing[0]}, which the records answer ({len(missing)} such); "
            "pass the benchmark file that the models were evaluated on"
        )
    references = {field for field in fields.values() if len(field) <= LONGEST_REFERENCE}
    targets = _fields_of(path, references) if references else {}
    return {
        index: [
            base64.b64decode(each) for each in pictures_in(resolved(fields[index], index, targets, path), index, path)
        ]
        for index in indices
    }


def _fields_of(path: Path, indices: Collection[str]) -> dict[str, str]:
    return {row["index"]: row["image"] or "" for row in _rows(path) if row["index"] in indices}


def _rows(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            for name in ("index", "image"):
                if name not in (reader.fieldnames or []):
                    raise UserError(
                        f"{path}: no column `{name}` found; expected a VLMEvalKit table (tab-separated, with index "
                        "and image); pass the benchmark file that the models were evaluated on"
                    )
            yield from reader
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected the benchmark's table; run the rule that makes it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a tab-separated UTF-8 table ({error}); get or make this file again") from None
