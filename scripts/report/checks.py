"""Inputs that contradict each other: better no page than one that mixes two runs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.model_names import base_of, is_control
from report.inputs import Benchmark, Metrics, Record, Score, of_first_seed, require

# What the score table counts of the records of one row.
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
            f"{benchmark.scores_path}: has rows of {missing[0]}, whose records were not given; "
            f"add --records {benchmark.name}:{missing[0]}=FILE"
        )
    if missing := sorted(benchmark.records.keys() - models):
        raise UserError(
            f"{benchmark.scores_path}: no row of {missing[0]}, though its records "
            f"({record_paths[missing[0]]}) were given; make the table again"
        )
    for score in benchmark.scores:
        found = counts_of(records_of_row(benchmark.records[score.model], score))
        stated = (score.num_questions, score.num_correct, score.num_unparsed, score.num_truncated)
        if found != stated:
            row = " / ".join(part for part in (score.model, score.split, score.group, score.name) if part)
            raise UserError(
                f"{benchmark.scores_path}: the row {row} counts {_words(stated)}, but its records "
                f"({record_paths[score.model]}) hold {_words(found)}; make the table again from these records"
            )
    for model, records in benchmark.records.items():
        covered = {s.split for s in benchmark.scores if s.model == model and s.group == "overall"}
        if missing := sorted({record.split for record in records} - covered):
            raise UserError(
                f"{benchmark.scores_path}: no overall row for {model} on split {missing[0]}, which "
                f"{record_paths[model]} holds; make the table again"
            )


def _words(counts: Counts) -> str:
    return ", ".join(f"{number} {name}" for number, name in zip(counts, _COUNTED, strict=True))


def check_same_questions(benchmark: Benchmark, record_paths: dict[str, Path]) -> None:
    """Refuses records of models that were not asked the same questions."""
    reference_model = next(iter(benchmark.records))
    reference = of_first_seed(benchmark.records[reference_model])
    for model, records in benchmark.records.items():
        by_index = of_first_seed(records)
        if differing := sorted(by_index.keys() ^ reference.keys()):
            has, lacks = (model, reference_model) if differing[0] in by_index else (reference_model, model)
            raise UserError(
                f"{record_paths[lacks]}: no record of question {differing[0]}, which {record_paths[has]} has "
                f"({len(differing)} such); evaluate both models on the same benchmark file"
            )
        for index, record in by_index.items():
            other = reference[index]
            for field in ("question", "options", "answer", "split"):
                if getattr(record, field) != getattr(other, field):
                    raise UserError(
                        f"{record_paths[model]}: the {field} of question {index} is "
                        f"{getattr(record, field)!r}, but {record_paths[reference_model]} has "
                        f"{getattr(other, field)!r}; evaluate both models on the same benchmark file"
                    )
        if is_control(model) and not is_control(reference_model):
            _check_other_pictures(by_index, reference, record_paths[model], record_paths[reference_model])
        elif not is_control(model):
            _check_same_pictures(by_index, reference, record_paths[model], record_paths[reference_model])


def _check_same_pictures(
    records: dict[str, Record], reference: dict[str, Record], path: Path, reference_path: Path
) -> None:
    for index, record in records.items():
        if record.image_sha256 != reference[index].image_sha256:
            raise UserError(
                f"{path}: question {index} was asked with another picture than in {reference_path}; "
                "evaluate both models on the same benchmark file"
            )


def _check_other_pictures(
    records: dict[str, Record], reference: dict[str, Record], path: Path, reference_path: Path
) -> None:
    if all(record.image_sha256 == reference[index].image_sha256 for index, record in records.items()):
        raise UserError(
            f"{path}: every question was asked with the same picture as in {reference_path}, so this is no control; "
            "evaluate it again with its pictures shuffled, or without them"
        )


def check_metrics(metrics: Metrics, path: Path) -> None:
    """Refuses metrics whose logged steps go beyond the end, or whose modules do not match."""
    if metrics.losses and metrics.losses[-1].step > metrics.num_steps:
        raise UserError(
            f"{path}: a loss of step {metrics.losses[-1].step} is logged, but the stage has {metrics.num_steps} "
            "steps; train this stage again"
        )
    tables = (metrics.num_trainable_parameters, metrics.tensors_changed, metrics.tensors_total)
    for table in tables:
        if table.keys() != metrics.num_parameters.keys():
            raise UserError(
                f"{path}: modules {', '.join(sorted(table))} in one place and "
                f"{', '.join(sorted(metrics.num_parameters))} in another; train this stage again"
            )


def check_provenance(value: Any, models: Sequence[str], path: Path) -> dict[str, dict[str, Any]]:
    """The provenance of each model; refuses a file that lacks one."""
    found = require(value, "models", dict, str(path))
    for model in models:
        if not isinstance(found.get(model), dict):
            raise UserError(f"{path}: nothing about {model} found, though its records were given; make the table again")
    return {model: found[model] for model in models}


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


def check_same_benchmark(benchmark: Benchmark, md5: str, provenance_path: Path) -> None:
    """Refuses scores on another version of the benchmark's file."""
    for model, found in benchmark.provenance.items():
        if found.get("benchmark_md5") != md5:
            raise UserError(
                f"{provenance_path}: {model} was asked the file with md5 {found.get('benchmark_md5')}, but "
                f"{benchmark.tsv_path} has {md5}; evaluate {model} again, or pass the file that it was asked"
            )
