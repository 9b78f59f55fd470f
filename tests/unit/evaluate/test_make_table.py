"""The score table: summed from records, and only of models that were asked the same."""

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.evaluate import make_table
from scripts.evaluate.intervals import bootstrap_interval, wilson_interval

PROVENANCE = {
    "model": "stage1",
    "harness": "vlmevalkit",
    "benchmark": "Digits",
    "benchmark_md5": "ab",
    "settings": {"temperature": 0},
    "serve": {"backend": "transformers"},
    "seeds": [0],
    "versions": {"torch": "2.13.0"},
    "wall_time_s": 12.5,
}


def record(index: int, **changes: Any) -> dict[str, Any]:
    """Every other question is right; two subjects in one discipline; five of a dev split."""
    correct = changes.get("correct", index % 2 == 1)
    return {
        "index": str(index), "split": "dev" if index < 5 else "test", "discipline": "digits",
        "subject": "odd" if index % 2 else "even", "question": "Which?", "options": {"A": "1", "B": "2"}, "answer": "B",
        "prediction": "B", "extracted": "B", "correct": correct, "status": "answered", "image_sha256": f"{index}",
        "score": float(correct), "metric": "accuracy", "seed": 0,
        **changes,
    }  # fmt: skip


def records(**changes: Any) -> list[dict[str, Any]]:
    return [record(index, **changes) for index in range(15)]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, str]]]:
    """Runs the program on records by model name; the rows of its table."""

    def run(models: dict[str, list[dict[str, Any]]], **provenances: dict[str, Any]) -> list[dict[str, str]]:
        for model, lines in models.items():
            about = {**PROVENANCE, "model": model, **provenances.get(model, {})}
            (tmp_path / f"{model}.json").write_text(json.dumps(about))
            (tmp_path / f"{model}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        argv = ["make_table.py", "--records", *[str(tmp_path / f"{model}.jsonl") for model in models]]
        argv += ["--provenances", *[str(tmp_path / f"{model}.json") for model in reversed(models)]]
        argv += ["--output-csv", str(tmp_path / "out/t.csv"), "--output-json", str(tmp_path / "out/t.json")]
        argv += ["--output-comparison", str(tmp_path / "out/t.comparison.csv")]
        monkeypatch.setattr(sys, "argv", argv)
        make_table.main()
        return list(csv.DictReader(io.StringIO((tmp_path / "out/t.csv").read_text())))

    return run


def test_each_split_has_an_overall_row_and_one_for_each_group(make: Callable[..., Any]) -> None:
    rows = make({"stage1": records()})
    assert list(rows[0]) == list(make_table.COLUMNS)
    assert [(r["split"], r["group"], r["name"], r["num_questions"], r["num_correct"]) for r in rows] == [
        ("dev", "overall", "", "5", "2"),
        ("dev", "discipline", "digits", "5", "2"),
        ("dev", "subject", "even", "3", "0"),
        ("dev", "subject", "odd", "2", "2"),
        ("test", "overall", "", "10", "5"),
        ("test", "discipline", "digits", "10", "5"),
        ("test", "subject", "even", "5", "0"),
        ("test", "subject", "odd", "5", "5"),
    ]


def test_shares_have_six_decimals_and_wilsons_interval(make: Callable[..., Any]) -> None:
    row = make({"stage1": records()})[0]
    low, high = wilson_interval(2, 5)
    assert (row["accuracy"], row["ci95_low"], row["ci95_high"]) == ("0.400000", f"{low:.6f}", f"{high:.6f}")


def test_unparsed_and_truncated_answers_are_counted(make: Callable[..., Any]) -> None:
    lines = records()
    lines[5] |= {"status": "unparsed", "extracted": None, "correct": False, "score": 0.0}
    lines[6] |= {"status": "truncated"}
    row = next(row for row in make({"stage1": lines}) if row["split"] == "test")
    assert (row["num_unparsed"], row["num_truncated"], row["num_correct"]) == ("1", "1", "4")


def test_questions_without_groups_give_overall_rows_only(make: Callable[..., Any]) -> None:
    rows = make({"stage1": records(discipline=None, subject=None)})
    assert [row["group"] for row in rows] == ["overall", "overall"]


def test_models_stand_in_the_order_of_the_pipeline_and_controls_last(make: Callable[..., Any]) -> None:
    names = ["stage2-shuffled", "stage2", "other", "graft", "parent", "stage1"]
    rows = make({name: records() for name in names})
    order = list(dict.fromkeys(row["model"] for row in rows))
    assert order == ["parent", "graft", "stage1", "stage2", "other", "stage2-shuffled"]


def test_the_order_of_records_and_of_arguments_changes_no_byte(make: Callable[..., Any], tmp_path: Path) -> None:
    make({"graft": records(), "stage1": records()})
    first = (tmp_path / "out/t.csv").read_bytes()
    make({"stage1": records()[::-1], "graft": records()[::-1]})
    assert (tmp_path / "out/t.csv").read_bytes() == first


def test_the_provenance_of_each_model_is_kept(make: Callable[..., Any], tmp_path: Path) -> None:
    make({"graft": records(), "stage1": records()})
    models = json.loads((tmp_path / "out/t.json").read_text())["models"]
    assert list(models) == ["graft", "stage1"]
    assert models["graft"]["wall_time_s"] == 12.5


def test_the_overall_rows_are_printed(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    make({"stage1": records()})
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "stage1",
        "test",
        "10",
        "questions",
        "accuracy",
        "0.500",
        "(0.237–0.763)",
    ]


def refused(make: Callable[..., Any], tmp_path: Path, match: str, *arguments: Any, **provenances: Any) -> None:
    with pytest.raises(UserError, match=match):
        make(*arguments, **provenances)
    assert not (tmp_path / "out").exists()


def test_models_with_other_questions_are_refused(make: Callable[..., Any], tmp_path: Path) -> None:
    refused(
        make, tmp_path, r"stage1.jsonl: 1 questions differ .*\(14\)", {"graft": records(), "stage1": records()[:-1]}
    )


@pytest.mark.parametrize("changes", [{"question": "Who?"}, {"answer": "A"}, {"options": {"A": "2", "B": "1"}}])
def test_a_question_that_changed_is_named(make: Callable[..., Any], tmp_path: Path, changes: dict[str, Any]) -> None:
    lines = [*records()[:-1], record(14, **changes)]
    refused(make, tmp_path, f"{next(iter(changes))} of question 14", {"graft": records(), "stage1": lines})


def test_other_pictures_are_refused_except_in_a_control(make: Callable[..., Any], tmp_path: Path) -> None:
    other = records(image_sha256="cd")
    assert make({"graft": records(), "graft-shuffled": other})
    shutil.rmtree(tmp_path / "out")
    refused(make, tmp_path, "image_sha256 of question 0", {"graft": records(), "stage1": other})


@pytest.mark.parametrize("field", ["harness", "settings", "serve", "seeds", "benchmark_md5", "versions"])
def test_models_that_were_asked_in_another_way_are_refused(
    make: Callable[..., Any], tmp_path: Path, field: str
) -> None:
    models = {"graft": records(), "stage1": records()}
    refused(make, tmp_path, f"stage1.json: {field} is", models, stage1={field: "another"})


def test_a_doubled_record_is_refused(make: Callable[..., Any], tmp_path: Path) -> None:
    refused(make, tmp_path, "question 3 is there twice for seed 0", {"graft": [*records(), record(3)]})


def test_a_record_that_was_cut_off_is_refused(make: Callable[..., Any], tmp_path: Path) -> None:
    make({"graft": records()})
    path = tmp_path / "graft.jsonl"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match="line 15 is no record"):
        make_table.read_records(path)


def test_a_model_without_records_is_refused(make: Callable[..., Any], tmp_path: Path) -> None:
    refused(make, tmp_path, "no records found", {"graft": []})


def comparison(tmp_path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((tmp_path / "out/t.comparison.csv").read_text())))


def test_each_two_models_are_compared_on_each_split(make: Callable[..., Any], tmp_path: Path) -> None:
    make(
        {"stage2": records(correct=True), "graft": records(), "stage2-blind": records(correct=False, image_sha256=None)}
    )
    rows = comparison(tmp_path)
    pairs = [("graft", "stage2"), ("graft", "stage2-blind"), ("stage2", "stage2-blind")]
    assert [(row["model"], row["other"], row["split"]) for row in rows] == [
        (*pair, split) for pair in pairs for split in ("dev", "test")
    ]
    test = rows[1]  # odd questions of 5 to 14: five right, five wrong
    counts = [test[f"num_{name}"] for name in ("questions", "both", "model_only", "other_only", "neither")]
    assert counts == ["10", "5", "0", "5", "0"]
    assert (test["difference"], test["mcnemar_p"]) == ("0.500000", "0.0625")
    assert float(test["ci95_low"]) < 0.5 < float(test["ci95_high"])


def test_a_table_of_one_model_compares_nothing(make: Callable[..., Any], tmp_path: Path) -> None:
    make({"stage2": records()})
    assert comparison(tmp_path) == []
    assert (tmp_path / "out/t.comparison.csv").read_text().startswith("model,other,split,")


def of_seed(seed: int, *right: int) -> list[dict[str, Any]]:
    """Four questions of one split, of which these are answered right."""
    return [record(index, split="test", subject=None, seed=seed, correct=index in right) for index in range(4)]


def test_with_several_seeds_questions_are_counted_once_and_the_accuracy_is_the_mean_over_all_answers(
    make: Callable[..., Any],
) -> None:
    row = make({"stage2": [*of_seed(7, 0, 1), *of_seed(8, 0), *of_seed(9, 0, 1, 2)]})[0]
    assert [row[name] for name in ("num_questions", "num_correct", "num_seeds")] == ["4", "6", "3"]
    low, high = bootstrap_interval([1.0, 2 / 3, 1 / 3, 0.0])
    assert (row["accuracy"], row["ci95_low"], row["ci95_high"]) == ("0.500000", f"{low:.6f}", f"{high:.6f}")


def test_models_are_compared_by_their_means_over_the_seeds(make: Callable[..., Any], tmp_path: Path) -> None:
    make({"graft": [*of_seed(7, 0), *of_seed(8, 1)], "stage2": [*of_seed(7, 0, 1), *of_seed(8, 0, 2)]})
    (row,) = comparison(tmp_path)
    counts = [row[f"num_{name}"] for name in ("questions", "both", "model_only", "other_only", "neither")]
    assert counts == ["4", "1", "0", "2", "1"]
    assert row["difference"] == "0.250000"


def test_a_question_that_was_asked_for_fewer_seeds_than_others_is_named(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    lines = [*of_seed(7), *of_seed(8)[:2], *of_seed(8)[3:]]
    refused(make, tmp_path, "question 2 was asked for 1 seeds, others for 2", {"stage2": lines})


def test_a_score_between_right_and_wrong_keeps_its_name_and_counts_as_it_is(make: Callable[..., Any]) -> None:
    shares = [1.0, 0.5, 0.8, 0.0]
    lines = [
        record(index, split="test", subject=None, metric="anls", score=share, correct=share == 1)
        for index, share in enumerate(shares)
    ]
    row = make({"stage2": lines})[0]
    assert (row["metric"], row["num_correct"], row["accuracy"]) == ("anls", "1", "0.575000")
    assert (row["ci95_low"], row["ci95_high"]) == tuple(f"{bound:.6f}" for bound in bootstrap_interval(shares))


def test_models_that_were_scored_by_another_metric_are_refused(make: Callable[..., Any], tmp_path: Path) -> None:
    models = {"graft": records(), "stage1": records(metric="anls")}
    refused(make, tmp_path, "metric of question 0 is 'anls'", models)
