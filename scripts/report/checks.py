"""Refuses inputs that contradict each other: no page is better than one that mixes two runs."""

from collections import Counter
from pathlib import Path

from scripts.common.errors import UserError
from scripts.evaluate.records import Record
from scripts.evaluate.scores import Benchmark, Score

# What a row of the score table counts: questions, correct ones, unparsed and truncated answers.
Counts = tuple[int, int, int, int]
_COUNTED = ("questions", "correct", "unparsed", "truncated")


def counts_of(records: list[Record]) -> Counts:
    """Questions, correct ones, unparsed and truncated answers."""
    statuses = Counter(record.status for record in records)
    num_correct = sum(record.correct for record in records)
    return len({record.index for record in records}), num_correct, statuses["unparsed"], statuses["truncated"]


def records_of_row(records: list[Record], score: Score) -> list[Record]:
    """The records that a row of the score table sums up."""
    chosen = [record for record in records if record.split == score.split]
    if score.group == "discipline":
        return [record for record in chosen if record.discipline == score.name]
    if score.group == "subject":
        return [record for record in chosen if record.subject == score.name]
    return chosen


def check_records_against_scores(benchmark: Benchmark, record_paths: dict[str, Path]) -> None:
    """Refuses a score table that does not sum up these records."""
    models = {score.model for score in benchmark.scores}
    if missing := sorted(models - benchmark.records.keys()):
        raise UserError(
            f"{benchmark.scores_path}: has rows of {missing[0]}, which evaluate.models does not list; make the table again"
        )
    if missing := sorted(benchmark.records.keys() - models):
        raise UserError(
            f"{benchmark.scores_path}: no row of {missing[0]}, though its records "
            f"({record_paths[missing[0]]}) are there; make the table again"
        )
    for score in benchmark.scores:
        found = counts_of(records_of_row(benchmark.records[score.model], score))
        stated = (score.num_questions, score.num_correct, score.num_unparsed, score.num_truncated)
        if found != stated:
            row = " / ".join(part for part in (score.model, score.split, score.group, score.name) if part)
            raise UserError(
                f"{benchmark.scores_path}: the row {row} counts {_in_words(stated)}, but its records "
                f"({record_paths[score.model]}) hold {_in_words(found)}; make the table again from these records"
            )
    for model, records in benchmark.records.items():
        covered = {s.split for s in benchmark.scores if s.model == model and s.group == "overall"}
        if missing := sorted({record.split for record in records} - covered):
            raise UserError(
                f"{benchmark.scores_path}: no overall row for {model} on split {missing[0]}, which "
                f"{record_paths[model]} holds; make the table again"
            )


def _in_words(counts: Counts) -> str:
    return ", ".join(f"{number} {name}" for number, name in zip(counts, _COUNTED, strict=True))


def check_same_benchmark(benchmark: Benchmark, md5: str, provenance_path: Path) -> None:
    """Refuses scores on another version of the benchmark's file."""
    for model, found in benchmark.provenance.items():
        if found.benchmark_md5 != md5:
            raise UserError(
                f"{provenance_path}: {model} was asked the file with md5 {found.benchmark_md5}, but "
                f"{benchmark.tsv_path} has {md5}; evaluate {model} again, or pass the file that it was asked"
            )
