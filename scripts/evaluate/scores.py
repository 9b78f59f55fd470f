"""The score table (CSV) and its provenance (JSON): the columns, and how both are read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.reading import parse_number, read_table, require
from scripts.evaluate.model_names import base_of
from scripts.evaluate.records import Record
from scripts.train.metrics import Metrics

SCORE_COLUMNS = (
    "model", "split", "group", "name", "num_questions", "num_correct", "accuracy", "ci95_low", "ci95_high",
    "num_unparsed", "num_truncated", "num_seeds", "metric",
)  # fmt: skip
SCORE_COUNTS = ("num_questions", "num_correct", "num_unparsed", "num_truncated", "num_seeds")
SCORE_SHARES = ("accuracy", "ci95_low", "ci95_high")
SCORE_GROUPS = ("overall", "discipline", "subject")


def check_provenance(value: Any, models: Sequence[str], path: Path) -> dict[str, dict[str, Any]]:
    """The provenance of each model; refuses a file that lacks one."""
    found = require(value, "models", dict, str(path))
    for model in models:
        if not isinstance(found.get(model), dict):
            raise UserError(f"{path}: nothing about {model} found, though its records were given; make the table again")
    return {model: found[model] for model in models}


@dataclass(frozen=True)
class Score:
    """One row of the score table."""

    model: str
    split: str
    group: str
    name: str
    metric: str
    num_questions: int
    num_correct: int
    num_unparsed: int
    num_truncated: int
    num_seeds: int
    accuracy: float
    ci95_low: float
    ci95_high: float


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's score table, its records by model and where they came from."""

    name: str
    tsv_path: Path
    scores_path: Path
    scores: list[Score]
    records: dict[str, list[Record]]
    provenance: dict[str, dict[str, Any]]


def read_scores(path: Path) -> list[Score]:
    """The rows of `eval/<benchmark>.csv`, each checked against itself."""
    scores = []
    rows = read_table(path, SCORE_COLUMNS, ",", "a score table")
    for number, row in enumerate(rows, start=2):
        where = f"{path}: row {number}"
        counts = [parse_number(row, name, int, where) for name in SCORE_COUNTS]
        shares = [parse_number(row, name, float, where) for name in SCORE_SHARES]
        score = Score(row["model"], row["split"], row["group"], row["name"], row["metric"], *counts, *shares)
        if score.group not in SCORE_GROUPS:
            raise UserError(f"{where}: group is {score.group!r}; expected one of {', '.join(SCORE_GROUPS)}")
        num_answers = score.num_questions * score.num_seeds
        if not 0 < num_answers >= score.num_correct:
            raise UserError(
                f"{where}: {score.num_correct} correct of {num_answers} answers; "
                "expected at least one answer and no more correct ones than that; make the table again"
            )
        # The table is written with 6 decimals. Other metrics give a score to answers that are not wholly correct.
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
        scores.append(score)
    if not any(score.group == "overall" for score in scores):
        raise UserError(f"{path}: no row with group `overall` found; make the table again")
    return scores


def check_same_weights(benchmark: Benchmark, stages: Sequence[Metrics], provenance_path: Path) -> None:
    """Refuses scores of other weights than those that the stages made."""
    for metrics in stages:
        for model, found in benchmark.provenance.items():
            asked = found.get("checkpoint_sha256")
            if base_of(model) == metrics.stage and asked != metrics.checkpoint_sha256:
                raise UserError(
                    f"{provenance_path}: {model} was asked with the weights {asked}, but {metrics.stage} made "
                    f"{metrics.checkpoint_sha256}; evaluate {model} again"
                )
