"""The record of one question, as one model answered it for one seed: a JSON line of `eval/<benchmark>/<model>.jsonl`."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from scripts.common.errors import UserError
from scripts.common.files import write_text_atomically
from scripts.common.json_text import json_value
from scripts.common.reading import numbered_lines
from scripts.common.settings import settings_from

REMEDY = "evaluate this model again"

# unparsed: nothing was found in the answer; truncated: `max_tokens` ended it.
Status = Literal["answered", "unparsed", "truncated"]


@dataclass(frozen=True)
class Record:
    """The fields stand in the file in this order."""

    index: str
    split: str
    discipline: str | None
    subject: str | None
    question: str
    options: dict[str, str]
    answer: str
    prediction: str
    extracted: str | None
    score: float
    correct: bool
    metric: str
    status: Status
    seed: int
    image_sha256: str | None  # None: no picture was shown

    def check(self) -> None:
        """Raises UserError where fields contradict each other."""
        if not 0 <= self.score <= 1 or self.correct != (self.score == 1):
            raise UserError(
                f"question {self.index} has the score {self.score} and is marked as "
                f"{'correct' if self.correct else 'not correct'}; expected a score from 0 to 1, and correct for 1 alone"
            )
        if self.status == "unparsed" and self.correct:
            raise UserError(f"question {self.index} is both unparsed and correct; expected one of them")


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Whole or not at all."""
    write_text_atomically(path, "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records))


def first_repeated(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def read_records(path: Path) -> list[Record]:
    """The records of one model on one benchmark; raises UserError naming the line or the question that is broken."""
    records = []
    for number, line in numbered_lines(path, "one JSON record per question"):
        try:
            record = settings_from(Record, json_value(line))
            record.check()
        except ValueError as error:
            raise UserError(f"{path}: line {number}: not valid JSON ({error}), probably cut off; {REMEDY}") from None
        except UserError as error:
            raise UserError(f"{path}: line {number}: {error}; {REMEDY}") from None
        records.append(record)
    if repeated := first_repeated([f"{record.index} (seed {record.seed})" for record in records]):
        raise UserError(f"{path}: question {repeated} is there twice; {REMEDY}")
    _check_same_seeds(records, path)
    return records


def _check_same_seeds(records: Sequence[Record], path: Path) -> None:
    nums_seeds = Counter(record.index for record in records)
    fewest, most = min(nums_seeds.values()), max(nums_seeds.values())
    if fewest < most:
        index = next(index for index, number in nums_seeds.items() if number == fewest)
        raise UserError(f"{path}: question {index} was asked for {fewest} seeds, others for {most}; {REMEDY}")


def of_first_seed(records: Sequence[Record]) -> dict[str, Record]:
    """One record a question, by its index: with several seeds, that of the first."""
    first = min(record.seed for record in records)
    return {record.index: record for record in records if record.seed == first}
