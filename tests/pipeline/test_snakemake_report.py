"""`snakemake --report` shows what a run gave, each file with a caption."""

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from helpers.workflow_run import WorkflowRun

pytestmark = pytest.mark.slow
SHOWN = {
    "eval/digits.csv": "The score table of digits",
    "eval/digits.comparison.csv": "Two models of digits at a time",
    "eval/digits.disagreements.html": "Every question of digits that some models answered right",
    "graft/fidelity.json": "The graft compared with the language donor",
    "curves/stage1.svg": "Loss by optimizer step",
    "curves/stage2.svg": "Loss by optimizer step",
    "report.html": "The whole run on one page",
}


def shown_files(page: str) -> dict[str, Any]:
    """The files of the report by their paths, as its page holds them for its script."""
    begin = page.index("var results = {") + len("var results = ")
    files: dict[str, Any] = json.JSONDecoder().raw_decode(page, begin)[0]
    return files


def test_snakemakes_report_holds_tables_curves_and_pages_with_captions(
    finished_demo: WorkflowRun, tmp_path: Path
) -> None:
    archive_path = tmp_path / "report.zip"
    finished_demo.run("--configfile", "config/demo.yaml", "--report", str(archive_path))
    with ZipFile(archive_path) as archive:
        files = shown_files(archive.read("report/report.html").decode())
        assert files.keys() == {f"results/demo/{name}" for name in SHOWN}
        for name, caption in SHOWN.items():
            file = files[f"results/demo/{name}"]
            assert caption in file["caption"]
            assert file["labels"]
            assert archive.read(f"report/{file['data_uri']}") == (finished_demo.results / name).read_bytes()
