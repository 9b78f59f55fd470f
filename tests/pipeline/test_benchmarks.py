"""Each benchmark that the list knows is fetched and scored by both backends of EvalScope, as far as each can."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.workflow_run import WorkflowRun
from scripts.questions.catalogue import read_catalogue

pytestmark = [pytest.mark.slow, pytest.mark.full]

Scored = dict[str, dict[str, Any]]
# A score between right and wrong, and one that is right within a tolerance.
METRICS = {"chartqa": "relaxed_accuracy", "docvqa": "anls", "ChartQA_TEST": "relaxed_accuracy", "DocVQA_VAL": "anls"}


def run_in_evaluate(root: Path, python: Path, *command: str, **variables: str) -> None:
    """Runs one of the tests' programs, with the modules of the programs and of the tests."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{root}:{root / 'tests'}",
        "HF_HUB_OFFLINE": "1",
        **variables,
    }
    process = subprocess.run([python, *command], cwd=root, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.fixture(scope="module")
def snapshots_dir(root: Path, evaluate_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset for each benchmark, in the hub's layout."""
    directory = tmp_path_factory.mktemp("snapshots")
    run_in_evaluate(root, evaluate_python, "tests/helpers/native_snapshots.py", "--output-dir", str(directory))
    return directory


@pytest.fixture(scope="module")
def natively(
    root: Path, evaluate_python: Path, snapshots_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scored:
    """Known answers, scored by the native backend, by the list's names."""
    directory = tmp_path_factory.mktemp("native")
    run_in_evaluate(
        root, evaluate_python, "tests/helpers/score_native_snapshots.py", "--snapshots-dir", str(snapshots_dir),
        "--work-dir", str(directory), "--output", str(directory / "scored.json"),
    )  # fmt: skip
    return dict(json.loads((directory / "scored.json").read_text()))


@pytest.fixture(scope="module")
def by_vlmevalkit(root: Path, evaluate_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Known answers, scored by VLMEvalKit, by its own names."""
    directory = tmp_path_factory.mktemp("vlmevalkit")
    (directory / "lmu").mkdir()
    run_in_evaluate(
        root, evaluate_python, "tests/helpers/score_vlmevalkit_tables.py", "--work-dir", str(directory),
        "--output", str(directory / "scored.json"), LMUData=str(directory / "lmu"), PRED_FORMAT="tsv",
    )  # fmt: skip
    return dict(json.loads((directory / "scored.json").read_text()))


@pytest.mark.parametrize("name", read_catalogue())
def test_the_native_backend_scores_right_and_wrong_answers(natively: Scored, name: str) -> None:
    right, wrong = natively[name]["right"], natively[name]["wrong"]
    assert len(right) == len(wrong) == len(natively[name]["rows"])
    assert {judgement["score"] for judgement in right} == {1}
    assert {judgement["score"] for judgement in wrong} == {0}
    assert {judgement["metric"] for judgement in right} == {METRICS.get(name, "accuracy")}
    assert all(judgement["extracted"] for judgement in right)


@pytest.mark.parametrize(
    "name",
    ["MMMU_DEV_VAL", "MMMU_Pro_10c", "MMStar", "POPE", "HallusionBench", "ChartQA_TEST", "DocVQA_VAL", "OCRBench"],
)
def test_vlmevalkit_scores_right_and_wrong_answers(by_vlmevalkit: Scored, name: str) -> None:
    right, wrong = by_vlmevalkit[name]["right"], by_vlmevalkit[name]["wrong"]
    assert len(right) == len(wrong) > 0
    assert {judgement["score"] for judgement in right} == {1}
    assert {judgement["score"] for judgement in wrong} == {0}
    assert {judgement["metric"] for judgement in right} == {METRICS.get(name, "accuracy")}


def test_an_answer_of_neither_yes_nor_no_is_unparsed(natively: Scored, by_vlmevalkit: Scored) -> None:
    assert {judgement["extracted"] for judgement in natively["pope"]["wrong"]} == {None}
    assert {judgement["extracted"] for judgement in by_vlmevalkit["POPE"]["wrong"]} == {None}


def test_an_answer_that_evalscope_cannot_score_is_refused_by_its_question(natively: Scored) -> None:
    message = natively["ocrbench"]["unreadable"]
    assert message.startswith(
        "ocr_bench: EvalScope could not score 1 answers, first question Regular Text Recognition/0: "
    )


def test_the_tables_hold_every_subset_and_picture(natively: Scored) -> None:
    subjects = [row["category"] for row in natively["mmmu"]["rows"]]
    assert len(set(subjects)) == 30
    assert natively["mmmu"]["nums_pictures"] == [2 if subject == "Art" else 1 for subject in subjects]
    assert {row["split"] for row in natively["mmmu"]["rows"]} == {"validation"}
    assert natively["hallusionbench"]["nums_pictures"] == [1, 0]
    assert set(natively["blink"]["nums_pictures"]) == {2}
    assert [row["index"] for row in natively["mmbench"]["rows"]] == ["cn/0", "en/0"]


# The rule that fetches one


@pytest.fixture
def checkout(make_checkout: Callable[[str], WorkflowRun], root: Path, snapshots_dir: Path) -> WorkflowRun:
    """The full recipe with the native backend, and ai2d's dataset in a directory of the user's."""
    run = make_checkout("native")
    config = yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8"))
    config["evaluate"] |= {"backend": "native", "benchmarks": [{"ai2d": str(snapshots_dir / "ai2d")}]}
    (run.directory / "native.yaml").write_text(yaml.safe_dump(config))
    return run


def fetch(run: WorkflowRun, status: int = 0) -> str:
    return run.run("--configfile", "native.yaml", "--", "resources/benchmarks/native/ai2d.json", status=status)


def test_a_table_in_place_is_verified_and_never_replaced(checkout: WorkflowRun, snapshots_dir: Path) -> None:
    fetch(checkout)
    tsv_path = checkout.directory / "resources/benchmarks/native/ai2d.tsv"
    record_path = tsv_path.with_suffix(".json")
    record = json.loads(record_path.read_text())
    assert (record["adapter"], record["num_questions"]) == ("ai2d", 1)
    assert record["source"] == str(snapshots_dir / "ai2d")
    before = tsv_path.read_bytes()
    record_path.unlink()
    assert f"{tsv_path.relative_to(checkout.directory)}: md5 {record['md5']} found" in fetch(checkout, status=1)
    assert tsv_path.read_bytes() == before
    tsv_path.unlink()
    fetch(checkout)
    assert tsv_path.read_bytes() == before  # the same dataset, the same bytes
