"""What a stage will train on: counted by its check where there is one, else assumed, and said so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from scripts.common.errors import UserError
from scripts.common.reading import object_from
from scripts.common.root import ROOT
from scripts.data.dataset_check import TokenCounts, read_dataset_check
from scripts.data.sources import Source, parse_source

KNOWN_SETS_PATH = ROOT / "config/datasets.yaml"
# Of a file of one's own that was not checked yet: a picture of 640 x 480 and a short conversation.
ASSUMED_PICTURE_TOKENS = 391
ASSUMED_TEXT_TOKENS = 150
# How much longer than the middle row the longest is, where nothing limits it.
ASSUMED_LONGEST_RATIO = 4


@dataclass(frozen=True)
class KnownSet:
    """An entry of config/datasets.yaml."""

    num_rows: int
    mean_tokens: float
    mean_picture_tokens: float
    median_tokens: float
    longest_tokens: float


@dataclass(frozen=True)
class PlannedRows:
    """Tokens of a row as means, but for the middle and the longest row."""

    num_rows: int
    mean_tokens: float
    mean_picture_tokens: float
    median_tokens: float
    longest_tokens: float
    origin: str

    @property
    def picture_share(self) -> float:
        """Of a row's tokens in the mean."""
        return self.mean_picture_tokens / self.mean_tokens if self.mean_tokens else 0.0


def known_sets() -> dict[str, KnownSet]:
    """The entries of config/datasets.yaml, by the source's name."""
    entries = yaml.safe_load(KNOWN_SETS_PATH.read_text(encoding="utf-8"))
    return {name: object_from(KnownSet, entry, KNOWN_SETS_PATH) for name, entry in entries.items()}


def counted_rows(check_path: Path, num_rows: int, tokens: TokenCounts) -> PlannedRows:
    assert tokens.row_tokens
    return PlannedRows(
        num_rows=num_rows,
        mean_tokens=tokens.num_tokens / num_rows,
        mean_picture_tokens=tokens.num_picture_tokens / num_rows,
        median_tokens=tokens.row_tokens.median,
        longest_tokens=tokens.row_tokens.max,
        origin=f"counted in {check_path}",
    )


def _of_source(source: Source, max_length: int | None) -> PlannedRows:
    known = known_sets().get(source.name)
    if known:
        num_rows = min(known.num_rows, source.num_wanted or known.num_rows)
        longest = min(known.longest_tokens, max_length or known.longest_tokens)
        means = (known.mean_tokens, known.mean_picture_tokens, known.median_tokens)
        return PlannedRows(num_rows, *means, longest, f"{source.name}: assumed (config/datasets.yaml)")
    if not source.is_file:
        raise UserError(
            f"{source.name}: not fetched yet, and none of config/datasets.yaml; the plan does not know its rows; expected a "
            "known set, or one that was checked; run `snakemake check`, or add it there"
        )
    with open(source.name, "rb") as file:
        num_rows = sum(1 for line in file if line.strip())
    tokens = ASSUMED_PICTURE_TOKENS + ASSUMED_TEXT_TOKENS
    longest = min(tokens * ASSUMED_LONGEST_RATIO, max_length or tokens * ASSUMED_LONGEST_RATIO)
    num_rows = min(num_rows, source.num_wanted or num_rows)
    origin = f"{source.name}: {num_rows} lines, {tokens} tokens a row assumed"
    return PlannedRows(num_rows, tokens, ASSUMED_PICTURE_TOKENS, tokens, longest, origin)


def planned_rows(datasets: Sequence[str], check_path: Path, max_length: int | None) -> PlannedRows:
    """The rows of a stage. Raises UserError for a set that nobody has counted and config/datasets.yaml does not know."""
    if check_path.exists():
        check = read_dataset_check(check_path)
        if check.tokens and check.tokens.row_tokens:
            return counted_rows(check_path, check.num_rows, check.tokens)
    parts = [_of_source(parse_source(text), max_length) for text in datasets]
    num_rows = sum(part.num_rows for part in parts)

    def mean(values: Sequence[float]) -> float:
        return sum(value * part.num_rows for value, part in zip(values, parts, strict=True)) / num_rows

    return PlannedRows(
        num_rows=num_rows,
        mean_tokens=mean([part.mean_tokens for part in parts]),
        mean_picture_tokens=mean([part.mean_picture_tokens for part in parts]),
        median_tokens=mean([part.median_tokens for part in parts]),
        longest_tokens=max(part.longest_tokens for part in parts),
        origin="; ".join(part.origin for part in parts),
    )
