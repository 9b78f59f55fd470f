"""One source of a stage's training rows: a file, or a dataset that ms-swift knows, and how many of its rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.common.errors import UserError
from scripts.data.source_text import FILE_SUFFIXES, split_source


@dataclass(frozen=True)
class Source:
    """A file or the id of a dataset, and how many of its rows are wanted (None: all)."""

    text: str
    name: str
    num_wanted: int | None
    is_file: bool


def parse_source(text: str) -> Source:
    """Reads `NAME` or `NAME#NUM`. Raises UserError when NAME looks like a file and is none."""
    name, num_wanted = split_source(text)
    is_file = Path(name).is_file()
    if not is_file and (name.endswith(FILE_SUFFIXES) or name.startswith(("/", "./", "../"))):
        raise UserError(f"source {text!r}: file {name} not found; expected a .jsonl of training rows; check the path")
    return Source(text, name, num_wanted, is_file)


def parse_sources(text: str) -> list[Source]:
    """The sources of a stage's `datasets`, given as JSON."""
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"datasets: {text} found; expected a JSON list of files and ids of datasets")
    return [parse_source(name) for name in names]


def chosen_rows(num_rows: int, num_wanted: int | None, seed: int) -> Sequence[int]:
    """Which rows `#NUM` takes: all rows as often as they fit into NUM, then random ones for the rest, as ms-swift does."""
    if num_wanted is None:
        return range(num_rows)
    num_repeats, num_rest = divmod(num_wanted, num_rows)
    rest = np.random.RandomState(seed).permutation(num_rows)[:num_rest]
    return [*list(range(num_rows)) * num_repeats, *rest.tolist()]
