"""Inputs of the report that are missing, broken or at odds with each other: one clear line, and no page."""

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.report_inputs import COMMIT, GRAFT_TIME, LAYOUT, TRAIN_LOCK, ReportInputs, build, make_metrics
from scripts.common.errors import UserError
from scripts.common.reading import seal_of
from scripts.report import make_report
from scripts.report.make_report import make
from scripts.workflow.layout import STAGES


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReportInputs:
    """In the working directory, so that messages name the files as the layout does."""
    monkeypatch.chdir(tmp_path)
    return build(Path(), num_questions=20)


def refusal(inputs: ReportInputs) -> str:
    """The message with which the program refuses these inputs; an older page must survive it, alone."""
    inputs.accept_edits()
    return refusal_of_edits(inputs)


def refusal_of_edits(inputs: ReportInputs) -> str:
    """The same, where what was edited since the programs wrote it is noticed."""
    inputs.output.write_text("the last good page", encoding="utf-8")
    before = sorted(inputs.directory.rglob("*"))
    with inputs.as_working_directory(), pytest.raises(UserError) as caught:
        make(Path(LAYOUT.effective_config), inputs.output, Path(LAYOUT.curves_dir), COMMIT)
    assert inputs.output.read_text(encoding="utf-8") == "the last good page"
    assert sorted(inputs.directory.rglob("*")) == before
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
    LAYOUT.effective_config, LAYOUT.metrics("stage1"), LAYOUT.metrics("stage2"), LAYOUT.ledger, LAYOUT.fidelity,
    LAYOUT.questions("digits"), LAYOUT.scores("digits"), LAYOUT.scores_provenance("digits"),
    LAYOUT.records("digits", "graft"), LAYOUT.records("digits", "stage2-shuffled"), LAYOUT.donor_manifest("vl"),
    LAYOUT.dataset_check("stage2"), TRAIN_LOCK, GRAFT_TIME,
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_an_input_that_is_missing_is_named(inputs: ReportInputs, name: str) -> None:
    inputs.path(name).unlink()
    assert refusal(inputs).startswith(f"{inputs.path(name)}: not found")


@pytest.mark.parametrize("name", [name for name in FILES if name != TRAIN_LOCK])
def test_an_input_that_was_cut_off_is_named(inputs: ReportInputs, name: str) -> None:
    whole = inputs.path(name).read_bytes()
    inputs.path(name).write_bytes(whole[: len(whole) * 2 // 3])
    assert str(inputs.path(name)) in refusal(inputs)


@pytest.mark.parametrize("name", FILES)
def test_an_empty_input_is_named(inputs: ReportInputs, name: str) -> None:
    inputs.path(name).write_bytes(b"")
    assert str(inputs.path(name)) in refusal(inputs)


@pytest.mark.parametrize("name", FILES)
def test_binary_rubbish_is_named(inputs: ReportInputs, name: str) -> None:
    inputs.path(name).write_bytes(b"\xff\xfe\x00\x80rubbish" * 50)
    assert str(inputs.path(name)) in refusal(inputs)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (LAYOUT.metrics("stage1"), "losses", None),
        (LAYOUT.metrics("stage1"), "num_steps", "many"),
        (LAYOUT.metrics("stage1"), "checkpoint_sha256", 5),
        (LAYOUT.metrics("stage1"), "num_parameters", {"aligner": 1.5}),
        (LAYOUT.fidelity, "bit_equal", "yes"),
        (LAYOUT.donor_manifest("vl"), "files", {}),
        (LAYOUT.dataset_check("stage1"), "num_rows", None),
    ],
)
def test_a_field_of_another_type_is_named_with_its_file(inputs: ReportInputs, name: str, key: str, value: Any) -> None:
    inputs.change_json(name, **{key: value})
    message = refusal(inputs)
    assert str(inputs.path(name)) in message
    assert f"`{key}`" in message or key in message


@pytest.mark.parametrize("column", ["num_questions", "num_correct", "num_unparsed", "num_truncated"])
@pytest.mark.parametrize("group", ["overall", "subject"])
def test_a_table_that_does_not_sum_up_its_records_is_refused(inputs: ReportInputs, column: str, group: str) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        row = next(row for row in rows if row["group"] == group)
        row["num_questions"] = str(int(row["num_questions"]) + (column == "num_questions"))
        if column not in ("num_questions",):
            row[column] = str(int(row[column]) + (1 if int(row[column]) < int(row["num_questions"]) else -1))
        row["accuracy"] = f"{int(row['num_correct']) / int(row['num_questions']):.6f}"
        row["ci95_low"], row["ci95_high"] = "0.0", "1.0"

    change_csv(inputs.scores_path, change)
    message = refusal(inputs)
    assert str(inputs.scores_path) in message
    assert str(inputs.record_paths["graft"]) in message


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("accuracy", "0.987654", "accuracy 0.987654 contradicts"),
        ("accuracy", "nan", "expected a number"),
        ("ci95_low", "0.999", "outside its interval"),
        ("num_correct", "7000", "no more correct ones"),
        ("num_questions", "many", "expected a number"),
        ("group", "topic", "expected one of"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused_with_its_number(
    inputs: ReportInputs, column: str, value: str, expected: str
) -> None:
    change_csv(inputs.scores_path, lambda rows: rows[0].update({column: value}))
    message = refusal(inputs)
    assert message.startswith(f"{inputs.scores_path}: row 2")
    assert expected in message


@pytest.mark.parametrize(
    ("name", "column"),
    [(LAYOUT.scores("digits"), "ci95_low"), (LAYOUT.ledger, "policy")],
)
def test_a_column_that_is_missing_is_named(inputs: ReportInputs, name: str, column: str) -> None:
    inputs.write_text(name, inputs.path(name).read_text(encoding="utf-8").replace(column, "else", 1))
    message = refusal(inputs)
    assert name in message
    assert f"`{column}`" in message


def test_models_of_the_table_and_of_the_configuration_must_be_the_same(inputs: ReportInputs) -> None:
    models = inputs.config["evaluate"]["models"]
    models.remove("stage1")
    inputs.write_config()
    assert "has rows of stage1, which evaluate.models does not list" in refusal(inputs)
    models += ["stage1", "stage2-blind"]
    inputs.write_config()
    inputs.write_records("stage2-blind", inputs.read_records("stage2"))
    models_made = inputs.read_json(LAYOUT.scores_provenance("digits"))["models"]
    inputs.write_json(
        LAYOUT.scores_provenance("digits"), {"models": {**models_made, "stage2-blind": models_made["stage2"]}}
    )
    assert "no row of stage2-blind" in refusal(inputs)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"question": "Which letter?"}, "the question of question 3"),
        ({"answer": "Q"}, "the answer of question 3"),
        ({"index": "elsewhere"}, "no record of question 3"),
        ({"image_sha256": "0" * 64}, "question 3 was asked with another picture"),
        ({"status": "lost"}, 'line 4: status: "lost" found'),
        ({"status": "unparsed", "correct": True, "score": 1.0}, "both unparsed and correct"),
        ({"correct": True, "score": 0.5}, "has the score 0.5 and is marked as correct"),
        ({"correct": False, "score": 1.5}, "has the score 1.5 and is marked as not correct"),
        ({"index": "4"}, "question 4 (seed 0) is there twice"),
        ({"correct": 1}, "line 4: correct: 1 found; expected bool"),
    ],
)
def test_records_that_fit_no_other_models_are_refused(
    inputs: ReportInputs, change: dict[str, Any], expected: str
) -> None:
    records = inputs.read_records("stage1")
    records[3] |= change
    inputs.write_records("stage1", records)
    if "status" not in change and "correct" not in change:
        inputs.write_scores()
    message = refusal(inputs)
    assert str(inputs.record_paths["stage1"]) in message
    assert expected in message


def test_a_benchmark_file_other_than_the_one_that_was_asked_is_refused(inputs: ReportInputs) -> None:
    path = inputs.questions_path
    path.write_text(path.read_text(encoding="utf-8").replace("Which digit?", "What digit?"), encoding="utf-8")
    message = refusal(inputs)
    assert message.startswith(f"{inputs.provenance_path}: graft was asked the file with md5")
    assert str(path) in message


def test_a_picture_other_than_the_one_that_was_shown_is_refused(inputs: ReportInputs) -> None:
    for model in ("graft", "stage1", "stage2"):
        inputs.write_records(model, [{**record, "image_sha256": "0" * 64} for record in inputs.read_records(model)])
    assert re.search(r"the picture of question \d+ is not the one that graft was shown", refusal(inputs))


def test_a_control_with_the_pictures_in_their_places_is_refused(inputs: ReportInputs) -> None:
    shown = [record["image_sha256"] for record in inputs.read_records("stage2")]
    records = inputs.read_records("stage2-shuffled")
    pairs = zip(records, shown, strict=True)
    inputs.write_records("stage2-shuffled", [record | {"image_sha256": sha256} for record, sha256 in pairs])
    message = refusal(inputs)
    assert message.startswith(f"{inputs.record_paths['stage2-shuffled']}: every question")
    assert "so this is no control" in message


def test_scores_of_other_weights_than_the_stage_made_are_refused(inputs: ReportInputs) -> None:
    inputs.write_json(LAYOUT.metrics("stage2"), {**make_metrics("stage2", 60, 0), "checkpoint_sha256": "f" * 64})
    message = refusal(inputs)
    assert message.startswith(f"{inputs.provenance_path}: stage2 was asked with the weights")
    assert message.endswith("evaluate stage2 again")


def test_metrics_of_another_stage_or_with_steps_out_of_order_are_refused(inputs: ReportInputs) -> None:
    metrics = inputs.read_json(LAYOUT.metrics("stage2"))
    inputs.write_json(LAYOUT.metrics("stage2"), inputs.read_json(LAYOUT.metrics("stage1")))
    assert "metrics of `stage1` found; expected those of `stage2`" in refusal(inputs)
    metrics["losses"] += metrics["losses"][-3:]
    inputs.write_json(LAYOUT.metrics("stage2"), metrics)
    assert "step 55 follows step 59" in refusal(inputs)
    metrics["losses"] = [{**metrics["losses"][0], "step": 61}]
    inputs.write_json(LAYOUT.metrics("stage2"), metrics)
    assert "a loss of step 61 is logged, but the stage has 60 steps" in refusal(inputs)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (LAYOUT.metrics("stage2"), {"num_samples_seen": 1}),
        (LAYOUT.metrics("stage1"), {"first_loss": 0.5}),
        (LAYOUT.fidelity, {"kl_mean_nats": 0.5}),
        (LAYOUT.fidelity, {"text": "another"}),
        (LAYOUT.dataset_check("stage1"), {"num_rows": 9}),
        (LAYOUT.donor_manifest("llm"), {"dir": "another"}),
        (LAYOUT.scores_provenance("digits"), {"models": {}}),
    ],
)
def test_a_record_that_was_edited_by_hand_is_refused(
    inputs: ReportInputs, name: str, changes: dict[str, object]
) -> None:
    inputs.edit_json(name, **changes)
    assert refusal(inputs).startswith(f"{name}: edited by hand, or of another version: its content has sha256 ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["wall_time_s", "peak_gpu_memory_gib", "num_tokens_per_s"])
def test_a_figure_that_is_not_finite_makes_no_page(inputs: ReportInputs, key: str, value: float) -> None:
    inputs.change_json(LAYOUT.metrics("stage2"), **{key: value})
    assert refusal(inputs).startswith(f"{LAYOUT.metrics('stage2')}: a time, a rate or a size that is not finite found")


@pytest.mark.parametrize(
    ("name", "expected_by"),
    [
        (LAYOUT.scores("digits"), LAYOUT.scores_provenance("digits")),
        (LAYOUT.records("digits", "graft"), LAYOUT.records_provenance("digits", "graft")),
    ],
)
def test_a_table_or_records_that_were_edited_by_hand_are_refused(
    inputs: ReportInputs, name: str, expected_by: str
) -> None:
    """A blank at the end changes no figure, and could be any edit that changes records and table alike."""
    content = inputs.path(name).read_bytes()
    inputs.path(name).write_bytes(content.replace(b"\n", b" \n", 1) if name.endswith("jsonl") else content + b"\n")
    message = refusal_of_edits(inputs)
    assert message.startswith(f"{name}: sha256 ") and f"expected by {expected_by}: it was edited since" in message


def test_a_ledger_that_was_edited_by_hand_is_refused(inputs: ReportInputs) -> None:
    text = inputs.path(LAYOUT.ledger).read_text(encoding="utf-8")
    inputs.write_text(LAYOUT.ledger, text.replace("the vision donor's vision tower", "the tower", 1))
    message = refusal(inputs)
    assert message.startswith(f"{LAYOUT.ledger}: sha256 ")
    assert f"expected by {LAYOUT.fidelity}: it was edited since" in message


def test_scores_of_another_graft_than_the_one_that_was_proven_are_refused(inputs: ReportInputs) -> None:
    inputs.change_json(LAYOUT.fidelity, graft_sha256="0" * 64)
    assert f"but graft made {'0' * 64}; evaluate graft again" in refusal(inputs)


def test_a_model_without_provenance_is_refused(inputs: ReportInputs) -> None:
    provenance = inputs.read_json(LAYOUT.scores_provenance("digits"))
    del provenance["models"]["stage1"]
    inputs.write_json(LAYOUT.scores_provenance("digits"), provenance)
    assert f"{inputs.provenance_path}: nothing about stage1 found" in refusal(inputs)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"report": {"num_gallery_pictures": -1}}, "report.num_gallery_pictures: -1 found; expected 0 or more"),
        ({"report": {"num_gallery_pictures": "many"}}, "report.num_gallery_pictures"),
        ({"report": {}}, "report.num_gallery_pictures: missing"),
        ({"evaluate": None}, f"{LAYOUT.effective_config}: `evaluate` is None"),
        ({"donors": {"vl": "x"}}, f"{LAYOUT.effective_config}: donors"),
        ({"donors": {"vl": {"kind": "x"}, "llm": {"kind": "demo"}}}, f"{LAYOUT.effective_config}: donors.vl.kind"),
        ({"evaluate": {"serve": None}}, f"{LAYOUT.effective_config}: evaluate"),
    ],
)
def test_a_configuration_that_lacks_something_is_refused(
    inputs: ReportInputs, changes: dict[str, Any], expected: str
) -> None:
    inputs.change_json(LAYOUT.effective_config, **changes)
    assert expected in refusal(inputs)


def test_a_page_that_would_be_too_heavy_is_refused(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_report, "MAX_PAGE_BYTES", 10_000)
    assert "lower report.num_gallery_pictures" in refusal(inputs)


def test_a_configuration_that_was_edited_by_hand_and_an_output_over_an_input_are_refused(
    inputs: ReportInputs, root: Path
) -> None:
    seal = seal_of(inputs.config)

    def run(output: str) -> subprocess.CompletedProcess[str]:
        options = ["--effective-config", LAYOUT.effective_config, "--config-sha256", seal, "--output", output]
        command = [sys.executable, str(root / "scripts"), "report.make_report", *options]
        return subprocess.run([*command, "--curves-dir", LAYOUT.curves_dir], text=True, capture_output=True)

    before = inputs.path(LAYOUT.ledger).read_bytes()
    over = run(LAYOUT.ledger)
    assert over.returncode == 1
    assert over.stderr.startswith(f"error: {LAYOUT.ledger}: found as an input and as an output")
    assert inputs.path(LAYOUT.ledger).read_bytes() == before
    assert run(LAYOUT.report).returncode == 0
    inputs.output.unlink()
    inputs.edit_json(LAYOUT.effective_config, seed=77)
    edited = run(LAYOUT.report)
    assert edited.returncode == 1 and not inputs.output.exists()
    [line] = edited.stderr.splitlines()
    assert line.startswith(f"error: {LAYOUT.effective_config}: not the configuration of this run: edited by hand")


def test_from_the_command_line_a_user_error_is_one_line_and_status_1(inputs: ReportInputs, root: Path) -> None:
    options = [
        "--effective-config",
        LAYOUT.effective_config,
        "--curves-dir",
        LAYOUT.curves_dir,
        "--output",
        LAYOUT.report,
    ]
    command = [sys.executable, str(root / "scripts"), "report.make_report", *options]
    good = subprocess.run(command, text=True, capture_output=True, check=True)
    assert inputs.output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert good.stderr.startswith(f"{LAYOUT.report}: ")
    assert all(inputs.path(LAYOUT.curve(stage)).read_text().startswith("<svg ") for stage in STAGES)
    inputs.path(LAYOUT.ledger).unlink()
    bad = subprocess.run(command, text=True, capture_output=True)
    assert bad.returncode == 1
    assert bad.stderr == (
        f"error: {inputs.path(LAYOUT.ledger)}: not found; expected the graft's ledger; run the rule that makes it\n"
    )


@pytest.mark.parametrize(("column", "value"), [("policy", "forgotten"), ("donor", "third"), ("bytes", "-1")])
def test_a_ledger_row_that_makes_no_sense_is_refused_with_its_number(
    inputs: ReportInputs, column: str, value: str
) -> None:
    lines = inputs.path(LAYOUT.ledger).read_text(encoding="utf-8").split("\n")
    cells = lines[4].split("\t")
    cells[lines[0].split("\t").index(column)] = value
    lines[4] = "\t".join(cells)
    inputs.path(LAYOUT.ledger).write_text("\n".join(lines), encoding="utf-8")
    message = refusal(inputs)
    assert message.startswith(f"{inputs.path(LAYOUT.ledger)}: row 5: {column} is ")
