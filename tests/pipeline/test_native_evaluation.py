"""The demo's second stage asked by EvalScope's native backend: asked in VLMEvalKit's words, it answers as it did there."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from helpers.evaluation_run import EvaluationRun
from helpers.workflow_run import WorkflowRun
from scripts.questions.tables import read_benchmark, write_benchmark

pytestmark = [pytest.mark.slow, pytest.mark.full]
# Of 400: those whose answer hangs on what JPEG does to a picture.
MOST_THAT_DIFFER = 4


def as_vlmevalkit_sends(picture: str) -> str:
    """The picture as a JPEG, as vlmeval/smp/vlm.py: encode_image_to_base64 makes one of a picture of 100 pixels or more."""
    data = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(picture))).save(data, "JPEG")
    return base64.b64encode(data.getvalue()).decode()


@pytest.fixture(scope="module")
def before(kept_demo: WorkflowRun) -> list[dict[str, Any]]:
    """The demo's own records, by VLMEvalKit."""
    lines = (kept_demo.results / "eval/digits/stage2.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def make_run(
    root: Path,
    evaluate_python: Path,
    train_python: Path,
    kept_demo: WorkflowRun,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """An evaluation like the demo's, by the native backend, with prompts in VLMEvalKit's words (config/demo.yaml)."""

    def make(name: str) -> EvaluationRun:
        evaluate = yaml.safe_load((root / "config/demo.yaml").read_text(encoding="utf-8"))["evaluate"]
        run = EvaluationRun(
            root,
            tmp_path_factory.mktemp(name),
            evaluate_python,
            train_python,
            kept_demo.results / "stage2/checkpoint",
            benchmark="digits",
            backend="native",
            serve=evaluate["serve"],
            settings=evaluate["native"],
        )
        run.tsv = kept_demo.directory / "resources/data/digits/test.tsv"
        return run

    return make


def different(records: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[str]:
    """The questions with another answer or another verdict."""
    said = ("index", "prediction", "extracted", "score", "status")
    return [
        one["index"] for one, other in zip(records, before, strict=True) if any(one[key] != other[key] for key in said)
    ]


def test_asked_in_the_same_words_about_the_same_pictures_both_backends_get_the_same_answers(
    make_run: Any, before: list[dict[str, Any]]
) -> None:
    run = make_run("jpeg")
    table = read_benchmark(run.tsv)
    run.tsv = run.directory / "digits.tsv"
    write_benchmark(table.assign(image=[as_vlmevalkit_sends(picture) for picture in table["image"]]), run.tsv)
    status, output = run.run()
    assert status == 0, output
    assert different(run.records(), before) == []
    # Or equal answers would say nothing: all four letters are given, and nearly all are right.
    assert {record["extracted"] for record in run.records()} == set("ABCD")
    assert sum(record["correct"] for record in run.records()) >= 0.95 * len(before)


def test_what_the_jpegs_change_is_little(make_run: Any, before: list[dict[str, Any]]) -> None:
    run = make_run("as_they_are")
    status, output = run.run()
    assert status == 0, output
    assert len(different(run.records(), before)) <= MOST_THAT_DIFFER
    assert [record["image_sha256"] for record in run.records()] == [record["image_sha256"] for record in before]
