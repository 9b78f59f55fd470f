"""What becomes of rows that cannot be trained on: the dataset is refused, or they are dropped and listed (`data.bad_rows`)."""

from dataclasses import dataclass, field

from scripts.common.errors import UserError
from scripts.data.settings import DataSettings

MAX_NUM_SHOWN = 20


@dataclass(frozen=True)
class DroppedRow:
    """A row that is not trained on: the file or dataset that it is from, its line or number there, and why."""

    file: str
    line: int
    reason: str


@dataclass
class BadRows:
    """The rows of a dataset that cannot be trained on, as they are found."""

    settings: DataSettings
    found: list[DroppedRow] = field(default_factory=list)

    def settle(self, num_rows: int, what: str) -> None:
        """Raises UserError where they refuse the dataset: by the setting, or because they are too many of `num_rows`."""
        if not self.found:
            return
        shown = [f"  {row.file}, line {row.line}: {row.reason}" for row in self.found[:MAX_NUM_SHOWN]]
        if len(self.found) > MAX_NUM_SHOWN:
            shown.append(f"  and {len(self.found) - MAX_NUM_SHOWN} more")
        fraction = len(self.found) / num_rows
        head = f"{what}: {len(self.found)} of {num_rows} rows cannot be trained on"
        if self.settings.bad_rows == "refuse":
            raise UserError("\n".join([f"{head}; correct them, or have them dropped by data.bad_rows: drop", *shown]))
        if fraction > self.settings.max_dropped_fraction:
            limit = f"data.max_dropped_fraction is {self.settings.max_dropped_fraction:g}"
            raise UserError("\n".join([f"{head}, which is more than may be dropped ({limit}); correct them", *shown]))
