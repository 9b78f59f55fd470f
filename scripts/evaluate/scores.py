"""The score table of a benchmark, `eval/<benchmark>.csv`: summed from records, written, read and checked."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pandas

from scripts.common.errors import UserError
from scripts.common.reading import parse_number, read_table
from scripts.evaluate.intervals import question_means, score_interval
from scripts.evaluate.model_names import base_of
from scripts.evaluate.provenance import Provenance
from scripts.evaluate.records import Record

SCORE_GROUPS = ("overall", "discipline", "subject")


@dataclass(frozen=True)
class Score:
    """One row; the fields are the table's columns, in this order."""

    model: str
    split: str
    group: str
    name: str  # of the discipline or subject; empty for `overall`
    num_questions: int
    num_correct: int  # answers
    accuracy: float
    ci95_low: float
    ci95_high: float
    num_unparsed: int
    num_truncated: int
    num_seeds: int
    metric: str


SCORE_COLUMNS = tuple(field.name for field in fields(Score))


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's score table, its records by model and where they come from."""

    name: str
    tsv_path: Path
    scores_path: Path
    scores: list[Score]
    records: dict[str, list[Record]]
    provenance: dict[str, Provenance]


def groups_of(records: Sequence[Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """(group, name, its records): all of them, then by discipline, then by subject, names in order."""
    yield "overall", "", list(records)
    for group in ("discipline", "subject"):
        for name in sorted({getattr(record, group) for record in records if getattr(record, group) is not None}):
            yield group, name, [record for record in records if getattr(record, group) == name]


def scores_of(model: str, records: Sequence[Record]) -> Iterator[Score]:
    """The rows of one model: splits in order, each with its groups."""
    for split in sorted({record.split for record in records}):
        for group, name, members in groups_of([record for record in records if record.split == split]):
            means = list(question_means((record.index, record.score) for record in members).values())
            low, high = score_interval(means)
            yield Score(
                model=model,
                split=split,
                group=group,
                name=name,
                num_questions=len(means),
                num_correct=sum(record.correct for record in members),
                accuracy=math.fsum(means) / len(means),
                ci95_low=low,
                ci95_high=high,
                num_unparsed=sum(record.status == "unparsed" for record in members),
                num_truncated=sum(record.status == "truncated" for record in members),
                num_seeds=len({record.seed for record in members}),
                metric=members[0].metric,
            )


def decimals(share: float) -> str:
    """A share as the tables hold it."""
    return f"{share:.6f}"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A header and rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def scores_text(scores: Iterable[Score]) -> str:
    """The whole table as CSV; the same scores give the same bytes."""
    return csv_text(
        SCORE_COLUMNS,
        ([decimals(value) if isinstance(value, float) else value for value in astuple(score)] for score in scores),
    )


def read_scores(path: Path) -> list[Score]:
    """The rows of a table, each checked against itself."""
    scores = []
    for number, row in enumerate(read_table(path, SCORE_COLUMNS, ",", "a score table"), start=2):
        where = f"{path}: row {number}"
        values: dict[str, Any] = dict(row)
        for field in fields(Score):
            if field.type in (int, float):
                values[field.name] = parse_number(row, field.name, field.type, where)  # type: ignore[arg-type]
        score = Score(**{column: values[column] for column in SCORE_COLUMNS})
        _check_score(score, where)
        scores.append(score)
    if not any(score.group == "overall" for score in scores):
        raise UserError(f"{path}: no row with group `overall` found; make the table again")
    return scores


def _check_score(score: Score, where: str) -> None:
    """Raises UserError where a row contradicts itself."""
    if score.group not in SCORE_GROUPS:
        raise UserError(f"{where}: group is {score.group!r}; expected one of {', '.join(SCORE_GROUPS)}")
    num_answers = score.num_questions * score.num_seeds
    if not 0 < num_answers >= score.num_correct:
        raise UserError(
            f"{where}: {score.num_correct} correct of {num_answers} answers; "
            "expected at least one answer and no more correct ones than that; make the table again"
        )
    # Other metrics give a score to answers that are not wholly correct.
    if score.metric == "accuracy" and abs(score.accuracy - score.num_correct / num_answers) > 1e-6:
        raise UserError(
            f"{where}: accuracy {score.accuracy} contradicts {score.num_correct} correct of "
            f"{num_answers}; make the table again"
        )
    if not score.ci95_low - 1e-6 <= score.accuracy <= score.ci95_high + 1e-6:
        raise UserError(
            f"{where}: accuracy {score.accuracy} lies outside its interval {score.ci95_low}–"
            f"{score.ci95_high}; make the table again"
        )


def overall_table(scores: Iterable[Score]) -> str:
    """The rows of group `overall` as aligned text: what was answered right, its 95 % interval, what went wrong."""
    overall = [score for score in scores if score.group == "overall"]
    shown = pandas.DataFrame(
        {
            "model": [score.model for score in overall],
            "split": [score.split for score in overall],
            "questions": [score.num_questions for score in overall],
            "seeds": [score.num_seeds for score in overall],
            "correct": [score.num_correct for score in overall],
            "metric": [score.metric for score in overall],
            "value": [f"{score.accuracy:.3f}" for score in overall],
            "95 % interval": [f"{score.ci95_low:.3f}–{score.ci95_high:.3f}" for score in overall],
            "unparsed": [score.num_unparsed for score in overall],
            "truncated": [score.num_truncated for score in overall],
        }
    )
    return shown.to_string(index=False)


def check_same_weights(benchmark: Benchmark, sha256_of_stage: Mapping[str, str], provenance_path: Path) -> None:
    """Refuses scores of other weights than those that the stages made."""
    for model, provenance in benchmark.provenance.items():
        expected = sha256_of_stage.get(base_of(model))
        if expected is not None and provenance.checkpoint_sha256 != expected:
            raise UserError(
                f"{provenance_path}: {model} was asked with the weights {provenance.checkpoint_sha256}, but "
                f"{base_of(model)} made {expected}; evaluate {model} again"
            )
