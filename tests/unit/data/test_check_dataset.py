"""Checking a stage's rows: what the report of a sound dataset says."""

import hashlib
import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.data.dataset_check import read_dataset_check
from scripts.data.pictures import NUM_PICTURES_PER_TASK
from scripts.data.row_origins import RowOrigins, write_row_origins

Row = dict[str, Any]


def check(root: Path, dataset_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    output_path = dataset_path.with_suffix(".check.json")
    command = [".venv/bin/python", "scripts", "data.check_dataset", "--dataset", str(dataset_path)]
    command += ["--output", str(output_path), *arguments]
    return subprocess.run(command, cwd=root, text=True, capture_output=True)


def write_dataset(directory: Path, sizes: list[tuple[int, int]]) -> Path:
    lines = []
    for number, size in enumerate(sizes):
        path = directory / f"{number}.png"
        Image.new("RGB", size, (number % 256, 0, 0)).save(path)
        messages = [{"role": "user", "content": "<image>what?"}, {"role": "assistant", "content": f"answer {number}"}]
        lines.append(json.dumps({"messages": messages, "images": [str(path)]}) + "\n")
    (directory / "rows.jsonl").write_text("".join(lines))
    return directory / "rows.jsonl"


def test_the_report_of_a_sound_dataset_counts_rows_pictures_and_turns(root: Path, tmp_path: Path) -> None:
    dataset_path = write_dataset(tmp_path, [(10, 40), (20, 20), (60, 30)])
    content = dataset_path.read_bytes()
    dataset_path.write_bytes(content + content.splitlines(keepends=True)[0])
    finished = check(root, dataset_path)
    assert finished.returncode == 0, finished.stderr
    report = asdict(read_dataset_check(dataset_path.with_suffix(".check.json")))
    assert report == {
        "num_rows": 4,
        "num_dropped_rows": 0,
        "num_duplicate_rows": 1,
        "num_assistant_turns": 4,
        "num_pictures": 3,
        "num_picture_references": 4,
        "picture_width_px": {"min": 10, "median": 20, "max": 60},
        "picture_height_px": {"min": 20, "median": 30, "max": 40},
        "picture_area_px": {"min": 400, "median": 400, "max": 1800},
        "num_changed_pictures": {},
        "tokens": None,
        "dropped": [],
        "num_bytes": dataset_path.stat().st_size,
        "sha256": hashlib.sha256(dataset_path.read_bytes()).hexdigest(),
    }
    assert "1 rows repeat an earlier one" in finished.stderr


def test_many_pictures_read_in_several_processes_give_the_same_report(root: Path, tmp_path: Path) -> None:
    dataset_path = write_dataset(tmp_path, [(8 + i % 5, 9) for i in range(3 * NUM_PICTURES_PER_TASK)])
    reports = []
    for num_workers in ("1", "2"):
        assert check(root, dataset_path, "--num-workers", num_workers).returncode == 0
        reports.append(dataset_path.with_suffix(".check.json").read_text())
    assert reports[0] == reports[1]


def test_rows_of_text_alone_pass_with_a_note(root: Path, tmp_path: Path) -> None:
    messages = [{"role": role, "content": "text"} for role in ("system", "user", "assistant", "user", "assistant")]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    finished = check(root, tmp_path / "rows.jsonl")
    assert finished.returncode == 0, finished.stderr
    assert "no row has a picture" in finished.stderr
    report = json.loads((tmp_path / "rows.check.json").read_text())
    assert (report["num_pictures"], report["num_assistant_turns"], report["picture_width_px"]) == (0, 2, None)


def test_rows_that_were_cut_after_they_were_prepared_are_refused(root: Path, tmp_path: Path) -> None:
    dataset_path = write_dataset(tmp_path, [(10, 40), (20, 20), (60, 30)])
    origins_path = tmp_path / "rows.origins.json"
    write_row_origins(origins_path, RowOrigins(["mine.jsonl"], [0, 0, 0], [1, 2, 3], [], {}))
    assert check(root, dataset_path, "--origins", str(origins_path)).returncode == 0
    dataset_path.write_text("".join(dataset_path.read_text().splitlines(keepends=True)[:2]))
    finished = check(root, dataset_path, "--origins", str(origins_path))
    assert finished.returncode == 1
    assert f"{dataset_path}: 2 rows found, 3 expected by the record of where they are from" in finished.stderr
