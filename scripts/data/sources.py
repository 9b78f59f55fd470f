"""One source of a stage's training rows: a file, or a dataset that ms-swift knows, and how many of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scripts.common.errors import UserError
from scripts.common.input_files import file_fault
from scripts.common.json_text import json_value
from scripts.data.source_text import FILE_SUFFIXES, split_source

# No training sees a row as often; the prepared rows would fill the disk.
MAX_NUM_REPEATS = 100


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
    fault = file_fault(name)
    if fault and (name.endswith(FILE_SUFFIXES) or name.startswith(("/", "./", "../"))):
        raise UserError(
            f"source {text!r}: file {name} {fault}; expected training rows (.jsonl, .json or .csv); check the path"
        )
    return Source(text, name, num_wanted, is_file=fault is None)


def parse_sources(text: str) -> list[Source]:
    """The sources of a stage's `datasets`, given as JSON."""
    try:
        names = json_value(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"datasets: {text:.200} found; expected a JSON list of files and ids of datasets, at least one")
    return [parse_source(name) for name in names]


def chosen_rows(num_rows: int, num_wanted: int | None, seed: int, where: str) -> Sequence[int]:
    """Which rows `#NUM` takes: all rows as often as they fit into NUM, then random ones for the rest, as ms-swift does.

    Raises UserError where each row would be taken more than `MAX_NUM_REPEATS` times.
    """
    if num_wanted is None:
        return range(num_rows)
    num_repeats, num_rest = divmod(num_wanted, num_rows)
    if num_repeats > MAX_NUM_REPEATS:
        raise UserError(
            f"{where}: {num_wanted} of {num_rows} rows wanted, so each {num_repeats} times; expected at most "
            f"{MAX_NUM_REPEATS} times; write a smaller number after the #"
        )
    rest = np.random.RandomState(seed).permutation(num_rows)[:num_rest]
    return [*list(range(num_rows)) * num_repeats, *rest.tolist()]
