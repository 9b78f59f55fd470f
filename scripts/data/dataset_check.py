"""The report on a training set that was found sound, RESULTS/data/STAGE.check.json."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.common.reading import read_sealed, write_sealed
from scripts.data.bad_rows import DroppedRow


@dataclass(frozen=True)
class Spread:
    """Least, middle and greatest of some values."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class LengthBin:
    """How many rows have at most so many tokens, and more than the bin before."""

    up_to_tokens: int
    num_rows: int


@dataclass(frozen=True)
class TokenCounts:
    """The rows as training encodes them. `max_length` is None where nothing limits them."""

    num_tokens: int
    num_picture_tokens: int
    num_trained_tokens: int
    row_tokens: Spread | None
    max_length: int | None
    lengths: list[LengthBin]


@dataclass(frozen=True)
class DatasetCheck:
    """What a training set holds. The sizes of pictures are None where there are none, the tokens where nothing was encoded."""

    num_rows: int
    num_dropped_rows: int
    num_duplicate_rows: int
    num_assistant_turns: int
    num_pictures: int
    num_picture_references: int
    picture_width_px: Spread | None
    picture_height_px: Spread | None
    picture_area_px: Spread | None
    num_changed_pictures: dict[str, int]
    tokens: TokenCounts | None
    dropped: list[DroppedRow]
    num_bytes: int
    sha256: str


def spread(values: Sequence[int]) -> Spread | None:
    return Spread(min(values), statistics.median(values), max(values)) if values else None


def length_bins(lengths: Sequence[int]) -> list[LengthBin]:
    """The rows by their lengths, in bins whose upper ends are powers of two."""
    num_rows = Counter(max(length - 1, 0).bit_length() for length in lengths)
    return [LengthBin(1 << power, num_rows[power]) for power in range(min(num_rows), max(num_rows) + 1)]


def write_dataset_check(path: Path, check: DatasetCheck) -> None:
    write_sealed(path, asdict(check))


def read_dataset_check(path: Path) -> DatasetCheck:
    return read_sealed(DatasetCheck, path)


def require_checked(dataset_path: Path, check_path: Path) -> None:
    """Raises UserError where the rows are not those that were checked."""
    expected, found = read_dataset_check(check_path).sha256, sha256_of_file(dataset_path)
    if found != expected:
        raise UserError(
            f"{dataset_path}: sha256 {found} found, {expected} expected by {check_path}: the rows were edited after their check; "
            "remove both files, so that they are made again"
        )
