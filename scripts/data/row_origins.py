"""Where each prepared row is from, RESULTS/data/STAGE.origins.json, so that messages name the user's own file and line."""

from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.reading import read_sealed, write_sealed
from scripts.data.bad_rows import DroppedRow


@dataclass(frozen=True)
class RowOrigins:
    """Of a prepared dataset: for each row the number of its source and its line there, and what was done on the way."""

    sources: list[str]
    source_of_row: list[int]
    line_of_row: list[int]
    dropped: list[DroppedRow]
    num_changed_pictures: dict[str, int]  # by how they were changed (scripts/data/seen_pictures.py)

    def place(self, row_number: int) -> tuple[str, int]:
        """The file or dataset of a row, counted from 1, and its line there."""
        return self.sources[self.source_of_row[row_number - 1]], self.line_of_row[row_number - 1]


def write_row_origins(path: Path, origins: RowOrigins) -> None:
    write_sealed(path, asdict(origins))


def read_row_origins(path: Path) -> RowOrigins:
    return read_sealed(RowOrigins, path)
