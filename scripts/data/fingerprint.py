"""The one sha256 that identifies a training set."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.json_text import json_value

_PICTURE_HEAD_BYTES = 4096
_NUM_PER_ROUND = 4096
_NUM_READERS = 16  # for many small reads, which wait for the disk rather than the processor


def dataset_sha256(dataset: Path) -> tuple[str, int]:
    """One sha256 for a training set, and its number of rows.

    Covers the rows, and of each picture that they name the size and the first bytes: pictures made anew under the same
    names are another training set, but reading millions of them whole would take hours.
    """
    digest = hashlib.sha256()
    pictures: set[str] = set()
    num_rows = 0
    with open(dataset, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            digest.update(line)
            num_rows += 1
            try:
                images = json_value(line).get("images") or []
            except (ValueError, AttributeError):
                raise UserError(f"{dataset}: row {number} is no JSON object; make the file again") from None
            images = images if isinstance(images, list) else [images]
            pictures.update(image for image in images if isinstance(image, str))
    if not num_rows:
        raise UserError(f"{dataset}: empty; expected at least one row of messages")
    ordered = sorted(pictures)
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        for start in range(0, len(ordered), _NUM_PER_ROUND):  # the pool keeps what it has read until it is asked for
            names = ordered[start : start + _NUM_PER_ROUND]
            for name, head in zip(names, pool.map(_picture_head, names), strict=True):
                digest.update(f"{name}\0".encode() + head)
    return digest.hexdigest(), num_rows


def _picture_head(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return f"{size}\0".encode() + file.read(_PICTURE_HEAD_BYTES)
    except (OSError, ValueError):
        return b"not a file here"  # an address or inline data; the row itself is hashed
