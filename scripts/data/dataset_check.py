"""The report on a training set that was found sound, RESULTS/data/STAGE.check.json."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.reading import read_sealed, write_sealed


@dataclass(frozen=True)
class Spread:
    """Least, middle and greatest of some values."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class DatasetCheck:
    """What a training set holds. The sizes of pictures are None where there are none."""

    num_rows: int
    num_duplicate_rows: int
    num_assistant_turns: int
    num_pictures: int
    num_picture_references: int
    picture_width_px: Spread | None
    picture_height_px: Spread | None
    picture_area_px: Spread | None
    num_bytes: int
    sha256: str


def spread(values: Sequence[int]) -> Spread | None:
    return Spread(min(values), statistics.median(values), max(values)) if values else None


def write_dataset_check(path: Path, check: DatasetCheck) -> None:
    write_sealed(path, asdict(check))


def read_dataset_check(path: Path) -> DatasetCheck:
    return read_sealed(DatasetCheck, path)
