"""`snakemake check` finds every fault of rows and questions at once, and says what it found where there is none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from helpers.training_rows import row_of, write_rows
from helpers.workflow_run import WorkflowRun

pytestmark = [pytest.mark.slow, pytest.mark.full]

CHECK = ("--keep-going", "check", "--configfile", "config/demo.yaml", "own.yaml")


@pytest.fixture
def run(make_checkout: Callable[[str], WorkflowRun], tiny_vl_dir: Path, tiny_llm_dir: Path) -> WorkflowRun:
    """A checkout with tiny donors, rows of three and questions of two."""
    run = make_checkout("check")
    donors: dict[str, Any] = {}
    for role, source in (("vl", tiny_vl_dir), ("llm", tiny_llm_dir)):
        donors[role] = {"kind": "local", "path": f"own/{role}"}
        shutil.copytree(source, run.directory / "own" / role)
    Image.new("RGB", (56, 56), "white").save(run.directory / "own/a.png")
    write_rows(run.directory / "own/rows.jsonl", [row_of(name, ["a.png"]) for name in "abc"])
    write_questions(run, "0", "1")
    overlay = {
        "donors": donors,
        "stage1": {"datasets": ["own/rows.jsonl"]},
        "stage2": {"datasets": ["own/rows.jsonl"]},
        "evaluate": {"benchmarks": [{"mine": "own/questions.jsonl"}]},
    }
    (run.directory / "own.yaml").write_text(yaml.safe_dump(overlay))
    return run


def write_questions(run: WorkflowRun, *indices: str) -> None:
    question = {"question": "Which?", "options": ["one", "two"], "answer": "A", "images": ["a.png"]}
    lines = [json.dumps(question | {"index": index}) + "\n" for index in indices]
    (run.directory / "own/questions.jsonl").write_text("".join(lines))


def test_all_faults_are_listed_at_once_and_after_they_are_mended_the_run_can_begin(run: WorkflowRun) -> None:
    sound = (run.directory / "own/rows.jsonl").read_text()
    write_rows(
        run.directory / "own/rows.jsonl", [row_of("a", ["a.png"]), row_of("b", ["gone.png"]), row_of("c", ["a.png"])]
    )
    write_questions(run, "0", "007")
    said = run.run(*CHECK, status=1)
    summary = said[said.rindex("Exiting because a job execution failed") :]
    assert "own/rows.jsonl, line 2: " in summary and "gone.png" in summary
    assert "index of question 007 is '007'" in summary

    (run.directory / "own/rows.jsonl").write_text(sound)
    write_questions(run, "0", "1")
    said = run.run(*CHECK)
    assert "language donor: " in said
    assert "stage1: 3 rows, 1 pictures, " in said and "stage2: 3 rows" in said
    assert "mine: 2 questions" in said
    assert not (run.results / "graft/model.safetensors.index.json").exists()
