"""Verdicts on yes or no, open answers and reading, from tables in the form in which VLMEvalKit leaves them.

VLMEvalKit's own functions judge, in the environment that has it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers.evaluation_inputs import write_rows
from scripts.evaluate.vlmevalkit_verdicts import choice_judgements

CODE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
sys.path.insert(0, ".")
from scripts.evaluate import vlmevalkit_verdicts
run_dir, *names = sys.argv[1:]
verdicts = {name: vlmevalkit_verdicts.OTHER_VERDICTS[name](Path(run_dir) / name, name) for name in names}
print(json.dumps({name: [asdict(each) for each in judgements] for name, judgements in verdicts.items()}))
"""
TABLES: dict[str, tuple[str, list[dict[str, str]]]] = {
    "POPE": (
        "auxmatch",
        [
            {"index": "0", "prediction": "Yes, there is.", "answer": "Yes"},
            {"index": "1", "prediction": "yes", "answer": "No"},
            {"index": "2", "prediction": "yes or no", "answer": "Yes"},
            {"index": "3", "prediction": "No.", "answer": "No"},
        ],
    ),
    "ChartQA_TEST": (
        "results",
        [
            {"index": "0", "prediction": "14", "answer": "14", "eval_match": "[1.0]"},
            {"index": "1", "prediction": " ", "answer": "14", "eval_match": "[0.0]"},
            {"index": "2", "prediction": "10.2", "answer": "10", "eval_match": "[True]"},
        ],
    ),
    "DocVQA_VAL": (  # `eval_match` is the distance to each accepted answer; a score below a half counts as none
        "results",
        [
            {"index": "0", "prediction": "Ada", "answer": "['Ada', 'Lovelace']", "eval_match": "[0.0, 0.875]"},
            {"index": "1", "prediction": "Adam", "answer": "['Ada']", "eval_match": "[0.25]"},
            {"index": "2", "prediction": "Eve", "answer": "['Ada']", "eval_match": "[0.667]"},
        ],
    ),
    "OCRBench": (
        "",
        [
            {"index": "0", "prediction": "It says CENTRE.", "answer": "['centre']", "category": "Regular Text Recognition"},
            {"index": "1", "prediction": "0012", "answer": "['0012']", "category": "Digit String Recognition"},
            {"index": "2", "prediction": "x ^ 2", "answer": "['x^2']",
             "category": "Handwritten Mathematical Expression Recognition"},
            {"index": "3", "prediction": "nothing", "answer": "['1', '2']", "category": "Doc-oriented VQA"},
        ],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def verdicts(root: Path, evaluate_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_dir = tmp_path_factory.mktemp("run")
    for name, (ending, rows) in TABLES.items():
        file_name = "_".join(filter(None, ("Qwen3-VL", name, ending)))
        write_rows(rows, run_dir / name / "Qwen3-VL" / f"{file_name}.tsv", tuple(rows[0]))
    environment = {**os.environ, "PYTHONPATH": ".", "LMUData": str(run_dir)}
    command = [evaluate_python, "-c", CODE, run_dir, *TABLES]
    finished = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return dict(json.loads(finished.stdout.splitlines()[-1]))


def test_each_question_has_its_verdict_on_its_own_answer(verdicts: dict[str, Any]) -> None:
    for name, (_, rows) in TABLES.items():
        said = [(each["index"], each["prediction"], each["answer"], each["options"]) for each in verdicts[name]]
        assert said == [(row["index"], row["prediction"], row["answer"], {}) for row in rows]


def test_an_answer_of_both_yes_and_no_is_neither(verdicts: dict[str, Any]) -> None:
    assert [(each["extracted"], each["score"]) for each in verdicts["POPE"]] == [
        ("Yes", 1.0), ("Yes", 0.0), (None, 0.0), ("No", 1.0),
    ]  # fmt: skip
    assert {each["metric"] for each in verdicts["POPE"]} == {"accuracy"}


def test_a_chart_is_read_with_the_tolerance_of_relaxed_accuracy(verdicts: dict[str, Any]) -> None:
    assert [(each["extracted"], each["score"], each["metric"]) for each in verdicts["ChartQA_TEST"]] == [
        ("14", 1.0, "relaxed_accuracy"), (None, 0.0, "relaxed_accuracy"), ("10.2", 1.0, "relaxed_accuracy"),
    ]  # fmt: skip


def test_a_nearly_right_answer_about_a_document_has_a_score_in_between(verdicts: dict[str, Any]) -> None:
    assert [(each["score"], each["metric"]) for each in verdicts["DocVQA_VAL"]] == [
        (1.0, "anls"), (0.75, "anls"), (0.0, "anls"),
    ]  # fmt: skip


def test_what_was_read_is_looked_for_in_the_answer_as_it_was_given(verdicts: dict[str, Any]) -> None:
    assert [each["score"] for each in verdicts["OCRBench"]] == [1.0, 1.0, 1.0, 0.0]


def test_judgements_of_choices_carry_what_the_parser_finds_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    matching = ModuleType("vlmeval.utils.matching_util")
    matching.can_infer = lambda text, options: text if text in options else False  # type: ignore[attr-defined]
    for name in ("vlmeval", "vlmeval.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vlmeval.utils.matching_util", matching)
    columns = ("index", "prediction", "A", "B", "C", "answer", "hit", "log")
    rows = [
        {
            "index": "1",
            "prediction": "B",
            "A": "1",
            "B": "None",
            "C": "",
            "answer": "B",
            "hit": "1",
            "log": "Match Log: B. ",
        },
        {
            "index": "2",
            "prediction": "so",
            "A": "7",
            "B": "Other Answers",
            "C": "",
            "answer": "7",
            "hit": "0",
            "log": "x",
        },
    ]
    write_rows(rows, tmp_path / "Qwen3-VL/Qwen3-VL_MMMU_DEV_VAL_exact_matching_result.tsv", columns)
    first, second = choice_judgements(tmp_path, "MMMU_DEV_VAL")
    assert first.options == {"A": "1", "B": "None"}
    assert (first.answer, first.score, first.extracted) == ("B", 1, "B")
    assert (second.answer, second.score, second.extracted) == ("A", 0, None)  # an open question
