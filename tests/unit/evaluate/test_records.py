"""A file of records is read as it was written, or refused with the line or the question that is broken."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import record, records
from scripts.common.errors import UserError
from scripts.evaluate.records import of_first_seed, read_records, write_records


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    given = [
        record(0, question='A "quoted"\ttext,\na second line\u2028and é', prediction="\u2028", image_sha256=None),
        record(1, discipline=None, subject=None, options={}, score=0.25, correct=False, metric="anls"),
        record(2, status="unparsed", extracted=None),
    ]
    write_records(tmp_path / "r.jsonl", given)
    assert read_records(tmp_path / "r.jsonl") == given


def test_the_keys_of_a_line_keep_their_order(tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", [record(0)])
    assert list(json.loads((tmp_path / "r.jsonl").read_text())) == [
        "index", "split", "discipline", "subject", "question", "options", "answer", "prediction", "extracted", "score",
        "correct", "metric", "status", "seed", "image_sha256",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": 1.5}, "line 2: question 1 has the score 1.5"),
        ({"correct": False}, "line 2: question 1 has the score 1.0 and is marked as not correct"),
        ({"status": "unparsed"}, "line 2: question 1 is both unparsed and correct"),
        ({"status": "lost"}, 'line 2: status: "lost" found; expected answered or unparsed or truncated'),
        ({"seed": "0"}, 'line 2: seed: "0" found; expected int'),
        ({"options": ["1"]}, 'line 2: options: ["1"] found; expected dict'),
        ({"index": "0"}, "question 0 (seed 0) is there twice"),
        ({"seed": 1, "index": "0"}, "question 2 was asked for 1 seeds, others for 2"),
    ],
)
def test_a_record_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "r.jsonl"
    write_records(path, [record(0), record(1), record(2)])
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | changes)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError) as refusal:
        read_records(path)
    assert str(refusal.value).startswith(f"{path}: {message}")
    assert str(refusal.value).endswith("evaluate this model again")


def test_a_record_without_a_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_records(path, [record(0)])
    line = json.loads(path.read_text())
    del line["metric"]
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match="line 1: metric: missing"):
        read_records(path)


@pytest.mark.parametrize(("num_cut", "message"), [(40, "its last line has no end"), (None, "empty; expected one JSON")])
def test_a_file_that_was_cut_off_or_is_empty_is_refused(tmp_path: Path, num_cut: int | None, message: str) -> None:
    path = tmp_path / "r.jsonl"
    write_records(path, records())
    path.write_text(path.read_text()[:-num_cut] if num_cut else "")
    with pytest.raises(UserError, match=message):
        read_records(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: not found"):
        read_records(tmp_path / "none.jsonl")


def test_of_several_seeds_the_first_speaks_for_a_question() -> None:
    given = [record(index, seed=seed) for seed in (8, 7) for index in range(2)]
    assert of_first_seed(given) == {"0": record(0, seed=7), "1": record(1, seed=7)}
