"""Inputs of the report that are missing, broken or at odds with each other: one clear line, and no page."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.report_inputs import ReportInputs, build, make_metrics
from scripts.common.errors import UserError
from scripts.report import make_report


@pytest.fixture
def inputs(tmp_path: Path) -> ReportInputs:
    return build(tmp_path / "inputs", num_questions=20)


def refusal(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, arguments: list[str] | None = None) -> str:
    """The message with which the program refuses these inputs; an older page must survive it, alone."""
    inputs.output.write_text("the last good page", encoding="utf-8")
    before = sorted(path.name for path in inputs.directory.iterdir())
    monkeypatch.setattr(sys, "argv", ["make_report.py", *(arguments or inputs.arguments())])
    with pytest.raises(UserError) as caught:
        make_report.main()
    assert inputs.output.read_text(encoding="utf-8") == "the last good page"
    assert sorted(path.name for path in inputs.directory.iterdir()) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_csv(path: Path, change: Callable[[list[dict[str, str]]], None]) -> None:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


FILES = (
    "config.json", "stage1.json", "stage2.json", "ledger.tsv", "fidelity.json", "test.tsv", "digits.csv",
    "digits.json", "graft.jsonl", "stage2-shuffled.jsonl", "vl.json", "data.check.json", "train.lock", "graft.tsv",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_an_input_that_is_missing_is_named(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    inputs.path(name).unlink()
    assert refusal(inputs, monkeypatch).startswith(f"{inputs.path(name)}: not found")


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("train.lock", "config.json")])
def test_an_input_that_was_cut_off_is_named(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole = inputs.path(name).read_bytes()
    inputs.path(name).write_bytes(whole[: len(whole) * 2 // 3])
    assert str(inputs.path(name)) in refusal(inputs, monkeypatch)


@pytest.mark.parametrize("name", FILES)
def test_an_empty_input_is_named(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    inputs.path(name).write_bytes(b"")
    assert str(inputs.path(name)) in refusal(inputs, monkeypatch)


@pytest.mark.parametrize("name", FILES)
def test_binary_rubbish_is_named(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    inputs.path(name).write_bytes(b"\xff\xfe\x00\x80rubbish" * 50)
    assert str(inputs.path(name)) in refusal(inputs, monkeypatch)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("stage1.json", "losses", None),
        ("stage1.json", "num_steps", "many"),
        ("stage1.json", "checkpoint_sha256", 5),
        ("stage1.json", "num_parameters", {"aligner": 1.5}),
        ("fidelity.json", "bit_equal", "yes"),
        ("vl.json", "files", {}),
        ("data.check.json", "num_rows", None),
    ],
)
def test_a_field_of_another_type_is_named_with_its_file(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, name: str, key: str, value: Any
) -> None:
    inputs.write_json(name, {**inputs.read_json(name), key: value})
    message = refusal(inputs, monkeypatch)
    assert str(inputs.path(name)) in message
    assert f"`{key}`" in message or key in message


@pytest.mark.parametrize("column", ["num_questions", "num_correct", "num_unparsed", "num_truncated"])
@pytest.mark.parametrize("group", ["overall", "subject"])
def test_a_table_that_does_not_sum_up_its_records_is_refused(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, column: str, group: str
) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["group"] == group)
        row["num_questions"] = str(int(row["num_questions"]) + (column == "num_questions"))
        if column not in ("num_questions",):
            row[column] = str(int(row[column]) + (1 if int(row[column]) < int(row["num_questions"]) else -1))
        row["accuracy"] = f"{int(row['num_correct']) / int(row['num_questions']):.6f}"
        row["ci95_low"], row["ci95_high"] = "0.0", "1.0"

    change_csv(inputs.path("digits.csv"), change)
    message = refusal(inputs, monkeypatch)
    assert str(inputs.path("digits.csv")) in message
    assert str(inputs.records["graft"]) in message


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("accuracy", "0.987654", "contradicts"),
        ("accuracy", "nan", "expected a number"),
        ("ci95_low", "0.999", "outside its interval"),
        ("num_correct", "7000", "no more correct ones"),
        ("num_questions", "many", "expected a number"),
        ("group", "topic", "expected one of"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused_with_its_number(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, column: str, value: str, expected: str
) -> None:
    change_csv(inputs.path("digits.csv"), lambda rows: rows[0].update({column: value}))
    message = refusal(inputs, monkeypatch)
    assert message.startswith(f"{inputs.path('digits.csv')}: row 2")
    assert expected in message


def test_a_column_that_is_missing_is_named(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, column in (("digits.csv", "ci95_low"), ("ledger.tsv", "policy"), ("test.tsv", "image")):
        path = inputs.path(name)
        whole = path.read_text(encoding="utf-8")
        path.write_text(whole.replace(column, "else", 1), encoding="utf-8")
        message = refusal(inputs, monkeypatch)
        path.write_text(whole, encoding="utf-8")
        inputs.write_json("digits.json", inputs.read_json("digits.json"))
        # A changed benchmark is noticed by its md5 before its columns are read.
        assert str(path) in message
        assert f"`{column}`" in message or name == "test.tsv"


def test_models_of_the_table_and_of_the_records_must_be_the_same(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = inputs.records.pop("stage1")
    assert "add --records digits:stage1=FILE" in refusal(inputs, monkeypatch)
    inputs.records["stage1"] = path
    inputs.records["stage3"] = path
    inputs.write_json("digits.json", {"models": {**inputs.read_json("digits.json")["models"], "stage3": {}}})
    assert "no row of stage3" in refusal(inputs, monkeypatch)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"question": "Which letter?"}, "the question of question 3"),
        ({"answer": "Q"}, "the answer of question 3"),
        ({"index": "elsewhere"}, "no record of question 3"),
        ({"image_sha256": "0" * 64}, "question 3 was asked with another picture"),
        ({"status": "lost"}, "line 4: status is 'lost'"),
        ({"status": "unparsed", "correct": True, "score": 1.0}, "both unparsed and correct"),
        ({"correct": True, "score": 0.5}, "has the score 0.5 and is said to be correct"),
        ({"correct": False, "score": 1.5}, "has the score 1.5 and is said to be not correct"),
        ({"index": "4"}, "question 4 (seed 0) is there twice"),
        ({"correct": 1}, "line 4: `correct` is 1"),
    ],
)
def test_records_that_fit_no_other_models_are_refused(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], expected: str
) -> None:
    records = inputs.read_records("stage1")
    records[3] |= change
    inputs.write_records("stage1", records)
    if "status" not in change and "correct" not in change:
        inputs.write_scores()
    message = refusal(inputs, monkeypatch)
    assert str(inputs.records["stage1"]) in message
    assert expected in message


def test_a_benchmark_file_other_than_the_one_that_was_asked_is_refused(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = inputs.path("test.tsv")
    path.write_text(path.read_text(encoding="utf-8").replace("Which digit?", "What digit?"), encoding="utf-8")
    message = refusal(inputs, monkeypatch)
    assert message.startswith(f"{inputs.path('digits.json')}: graft was asked the file with md5")
    assert str(path) in message


def test_a_picture_other_than_the_one_that_was_shown_is_refused(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in ("graft", "stage1", "stage2"):
        inputs.write_records(model, [{**record, "image_sha256": "0" * 64} for record in inputs.read_records(model)])
    assert re.search(r"the picture of question \d+ is not the one that graft was shown", refusal(inputs, monkeypatch))


def test_a_control_with_the_pictures_in_their_places_is_refused(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [record["image_sha256"] for record in inputs.read_records("stage2")]
    records = inputs.read_records("stage2-shuffled")
    pairs = zip(records, shown, strict=True)
    inputs.write_records("stage2-shuffled", [record | {"image_sha256": sha256} for record, sha256 in pairs])
    message = refusal(inputs, monkeypatch)
    assert message.startswith(f"{inputs.records['stage2-shuffled']}: every question")
    assert "so this is no control" in message


def test_scores_of_other_weights_than_the_stage_made_are_refused(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs.write_json("stage2.json", {**make_metrics("stage2", 60, 0), "checkpoint_sha256": "f" * 64})
    message = refusal(inputs, monkeypatch)
    assert message.startswith(f"{inputs.path('digits.json')}: stage2 was asked with the weights")
    assert message.endswith("evaluate stage2 again")


def test_metrics_of_another_stage_or_with_steps_out_of_order_are_refused(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = dict(inputs.metrics)
    inputs.metrics["stage2"] = paths["stage1"]
    assert "metrics of `stage1` found; expected those of `stage2`" in refusal(inputs, monkeypatch)
    inputs.metrics["stage2"] = paths["stage2"]
    metrics = inputs.read_json("stage2.json")
    metrics["losses"] += metrics["losses"][-3:]
    inputs.write_json("stage2.json", metrics)
    assert "step 55 follows step 59" in refusal(inputs, monkeypatch)
    metrics["losses"] = [{**metrics["losses"][0], "step": 61}]
    inputs.write_json("stage2.json", metrics)
    assert "a loss of step 61 is logged, but the stage has 60 steps" in refusal(inputs, monkeypatch)


def test_a_model_without_provenance_is_refused(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    provenance = inputs.read_json("digits.json")
    del provenance["models"]["stage1"]
    inputs.write_json("digits.json", provenance)
    assert f"{inputs.path('digits.json')}: nothing about stage1 found" in refusal(inputs, monkeypatch)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--records", "digits=x.jsonl", "expected NAME:MODEL=FILE"),
        ("--records", "mmmu:stage1=x.jsonl", "no such benchmark was given"),
        ("--metrics", "stage1=x.json", "given twice"),
        ("--benchmark", "mmmu=x.tsv", "--scores mmmu: not given"),
        ("--num-gallery-pictures", "-1", "expected 0 or more"),
    ],
)
def test_a_command_line_that_does_not_add_up_is_refused(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, option: str, value: str, expected: str
) -> None:
    assert expected in refusal(inputs, monkeypatch, [*inputs.arguments(), option, value])


def test_a_page_that_would_be_too_heavy_is_refused(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_report, "MAX_PAGE_BYTES", 10_000)
    assert "lower report.num_gallery_pictures" in refusal(inputs, monkeypatch)


def test_from_the_command_line_a_user_error_is_one_line_and_status_1(inputs: ReportInputs, root: Path) -> None:
    command = [sys.executable, "scripts", "report.make_report", *inputs.arguments()]
    good = subprocess.run(command, cwd=root, text=True, capture_output=True, check=True)
    assert inputs.output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert json.dumps(str(inputs.output))[1:-1] in good.stderr
    inputs.path("ledger.tsv").unlink()
    bad = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert bad.returncode == 1
    assert bad.stderr == (
        f"error: {inputs.path('ledger.tsv')}: not found; expected the graft's ledger; run the rule that makes it\n"
    )


@pytest.mark.parametrize(("column", "value"), [("policy", "forgotten"), ("donor", "third"), ("bytes", "-1")])
def test_a_ledger_row_that_makes_no_sense_is_refused_with_its_number(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch, column: str, value: str
) -> None:
    lines = inputs.path("ledger.tsv").read_text(encoding="utf-8").split("\n")
    cells = lines[4].split("\t")
    cells[lines[0].split("\t").index(column)] = value
    lines[4] = "\t".join(cells)
    inputs.path("ledger.tsv").write_text("\n".join(lines), encoding="utf-8")
    message = refusal(inputs, monkeypatch)
    assert message.startswith(f"{inputs.path('ledger.tsv')}: row 5: {column} is ")
