"""Makes the score table of a benchmark from per-question records: a row per model, split and group of questions.

Beside it stands the comparison of each two models on the same questions (McNemar's test): far sharper than to see whether
two intervals overlap, since it counts only the questions on which the two differ.

Nothing is taken from the evaluation harness's own sums. Models stand beside each other only if they were asked the same
questions in the same way: other indices, texts, answers, pictures, settings or versions refuse the table.

By hand:
  .venv/bin/python scripts evaluate.make_table --records results/demo/eval/digits/{graft,stage1,stage2,stage2-shuffled}.jsonl \
    --provenances results/demo/eval/digits/{graft,stage1,stage2,stage2-shuffled}.json \
    --output-csv results/demo/eval/digits.csv --output-json results/demo/eval/digits.json \
    --output-comparison results/demo/eval/digits.comparison.csv
"""

import argparse
import csv
import io
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.files import read_json, write_json_atomically, write_text_atomically
from scripts.evaluate.intervals import question_means, score_interval
from scripts.evaluate.model_names import is_control, pipeline_order
from scripts.evaluate.paired_comparison import compare

COLUMNS = (
    "model", "split", "group", "name", "num_questions", "num_correct", "accuracy", "ci95_low", "ci95_high",
    "num_unparsed", "num_truncated", "num_seeds", "metric",
)  # fmt: skip

COMPARISON_COLUMNS = (
    "model", "other", "split", "num_questions", "num_both", "num_model_only", "num_other_only", "num_neither",
    "difference", "ci95_low", "ci95_high", "mcnemar_p",
)  # fmt: skip

# What must agree for two models to stand in one table.
SHARED_FIELDS = ("harness", "benchmark", "benchmark_md5", "settings", "serve", "seeds", "versions")
SHARED_RECORD_FIELDS = ("split", "discipline", "subject", "question", "options", "answer", "metric")
Record = Mapping[str, Any]

# Of a question and a seed.
Key = tuple[str, int]


def read_records(path: Path) -> dict[Key, Record]:
    """Records by index and seed; raises UserError when the file is absent, broken, empty or has a question twice."""
    records: dict[Key, Record] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected records of evaluate.py; evaluate this model") from None
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
            key = (record["index"], record["seed"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: line {number} is no record; evaluate this model again") from None
        if key in records:
            raise UserError(f"{path}: question {key[0]} is there twice for seed {key[1]}; evaluate this model again")
        records[key] = record
    if not records:
        raise UserError(f"{path}: no records found; evaluate this model again")
    nums_asked = Counter(index for index, _ in records)
    if len(set(nums_asked.values())) > 1:
        index = min(nums_asked, key=lambda index: nums_asked[index])
        raise UserError(
            f"{path}: question {index} was asked for {nums_asked[index]} seeds, others for {max(nums_asked.values())}; "
            "evaluate this model again"
        )
    return records


def check_same_way(provenances: Mapping[str, Mapping[str, Any]], paths: Mapping[str, Path]) -> None:
    """Raises UserError when two models were evaluated in different ways."""
    first, *others = provenances
    for field in SHARED_FIELDS:
        for model in others:
            if provenances[model][field] != provenances[first][field]:
                raise UserError(
                    f"{paths[model]}: {field} is {json.dumps(provenances[model][field])}, but {paths[first]} has "
                    f"{json.dumps(provenances[first][field])}; such scores do not compare: evaluate both the same way"
                )


def check_same_questions(records: Mapping[str, Mapping[Key, Record]], paths: Mapping[str, Path]) -> None:
    """Raises UserError when two models were not asked the same questions about the same pictures (controls: others)."""
    first, *others = records
    for model in others:
        if differing := sorted(records[model].keys() ^ records[first].keys()):
            raise UserError(
                f"{paths[model]}: {len(differing)} questions differ from those in {paths[first]} "
                f"({', '.join(index for index, _ in differing[:5])}); evaluate both models on the same benchmark file"
            )
        is_with_control = is_control(model) or is_control(first)
        fields = SHARED_RECORD_FIELDS if is_with_control else (*SHARED_RECORD_FIELDS, "image_sha256")
        for key, record in records[model].items():
            for field in fields:
                if record[field] != records[first][key][field]:
                    raise UserError(
                        f"{paths[model]}: {field} of question {key[0]} is {record[field]!r}, but {paths[first]} has "
                        f"{records[first][key][field]!r}; evaluate both models on the same benchmark file"
                    )


def groups_of(records: Sequence[Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """(group, name, its records): all of them, then by discipline, then by subject, names in order."""
    yield "overall", "", list(records)
    for group in ("discipline", "subject"):
        for name in sorted({record[group] for record in records if record[group] is not None}):
            yield group, name, [record for record in records if record[group] == name]


def rows_of(model: str, records: Sequence[Record]) -> Iterator[tuple[Any, ...]]:
    """The table's rows of one model."""
    for split in sorted({record["split"] for record in records}):
        for group, name, members in groups_of([record for record in records if record["split"] == split]):
            scores = list(question_means((record["index"], record["score"]) for record in members).values())
            num_correct = sum(record["correct"] for record in members)
            mean = math.fsum(scores) / len(scores)
            counted = [sum(record["status"] == status for record in members) for status in ("unparsed", "truncated")]
            shares = (f"{share:.6f}" for share in (mean, *score_interval(scores)))
            num_seeds, metric = len({record["seed"] for record in members}), members[0]["metric"]
            yield model, split, group, name, len(scores), num_correct, *shares, *counted, num_seeds, metric


def table_text(records: Mapping[str, Mapping[Key, Record]]) -> str:
    """The whole CSV, models in the order given; the same records give the same bytes."""
    return csv_text(COLUMNS, (row for model in records for row in rows_of(model, list(records[model].values()))))


def comparison_rows(records: Mapping[str, Mapping[Key, Record]]) -> Iterator[tuple[Any, ...]]:
    """A row for each split and each two models, the one that stands first in the table first; the difference is other's less."""
    for model, other in itertools.combinations(records, 2):
        for split in sorted({record["split"] for record in records[model].values()}):
            first, second = (
                question_means(
                    (record["index"], record["score"]) for record in records[name].values() if record["split"] == split
                )
                for name in (model, other)
            )
            pair = compare(list(first.values()), [second[index] for index in first])
            counts = (pair.num_both, pair.num_first_only, pair.num_second_only, pair.num_neither)
            shares = (f"{value:.6f}" for value in (pair.difference, *pair.interval()))
            yield model, other, split, pair.num_questions, *counts, *shares, f"{pair.p_value():.3g}"


def comparison_text(records: Mapping[str, Mapping[Key, Record]]) -> str:
    """The whole comparison as CSV; with one model a header alone."""
    return csv_text(COMPARISON_COLUMNS, comparison_rows(records))


def csv_text(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> str:
    """A header and rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def overall_lines(text: str) -> Iterator[str]:
    """The overall rows, for people."""
    for row in csv.DictReader(io.StringIO(text)):
        if row["group"] == "overall":
            yield (
                f"{row['model']:<16} {row['split']:<12} {row['num_questions']:>5} questions  {row['metric']} "
                f"{float(row['accuracy']):.3f}  ({float(row['ci95_low']):.3f}–{float(row['ci95_high']):.3f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=Path, nargs="+", required=True)
    parser.add_argument("--provenances", type=Path, nargs="+", required=True, help="one for each, MODEL.json")
    parser.add_argument("--output-csv", type=Path, required=True)
    parser.add_argument("--output-json", type=Path, required=True)
    parser.add_argument("--output-comparison", type=Path, required=True)
    arguments = parser.parse_args()

    records_paths = {path.stem: path for path in sorted(arguments.records, key=lambda path: pipeline_order(path.stem))}
    provenance_paths = {path.stem: path for path in arguments.provenances}
    if records_paths.keys() != provenance_paths.keys():
        alone = sorted(records_paths.keys() ^ provenance_paths.keys())
        raise UserError(
            f"--records, --provenances: {', '.join(alone)} is in only one of the two; expected both of each"
        )
    records = {model: read_records(path) for model, path in records_paths.items()}
    provenances = {model: read_json(provenance_paths[model]) for model in records}
    check_same_way(provenances, provenance_paths)
    check_same_questions(records, records_paths)
    text = table_text(records)
    write_json_atomically(arguments.output_json, {"models": provenances})
    write_text_atomically(arguments.output_comparison, comparison_text(records))
    write_text_atomically(arguments.output_csv, text)
    print("\n".join(overall_lines(text)))


if __name__ == "__main__":
    run_program(main)
