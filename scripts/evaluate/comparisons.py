"""The comparison of each two models of a table, `eval/<benchmark>.comparison.csv`: a row for each split."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

from scripts.evaluate.intervals import question_means
from scripts.evaluate.paired_comparison import compare
from scripts.evaluate.records import Record
from scripts.evaluate.scores import csv_text, decimals


@dataclass(frozen=True)
class ComparisonRow:
    """One row; the fields are the columns, in this order. Fractions are texts, as they are written."""

    model: str  # that stands first in the table
    other: str
    split: str
    num_questions: int
    num_both: int
    num_model_only: int
    num_other_only: int
    num_neither: int
    difference: str  # other's accuracy less model's
    ci95_low: str
    ci95_high: str
    mcnemar_p: str


COMPARISON_COLUMNS = tuple(field.name for field in fields(ComparisonRow))


def comparison_rows(records: Mapping[str, Sequence[Record]]) -> Iterator[ComparisonRow]:
    """The rows of models that answered the same questions."""
    for model, other in itertools.combinations(records, 2):
        for split in sorted({record.split for record in records[model]}):
            first, second = (
                question_means((record.index, record.score) for record in records[name] if record.split == split)
                for name in (model, other)
            )
            pair = compare(list(first.values()), [second[index] for index in first])
            low, high = pair.interval()
            yield ComparisonRow(
                model=model,
                other=other,
                split=split,
                num_questions=pair.num_questions,
                num_both=pair.num_both,
                num_model_only=pair.num_first_only,
                num_other_only=pair.num_second_only,
                num_neither=pair.num_neither,
                difference=decimals(pair.difference),
                ci95_low=decimals(low),
                ci95_high=decimals(high),
                mcnemar_p=f"{pair.p_value():.3g}",
            )


def comparison_text(records: Mapping[str, Sequence[Record]]) -> str:
    """The whole comparison as CSV; with one model a header alone."""
    return csv_text(COMPARISON_COLUMNS, map(astuple, comparison_rows(records)))
