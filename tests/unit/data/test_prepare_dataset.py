"""Preparing a stage's rows from files: paths, order, sampling, and what is refused."""

import json
import subprocess
from pathlib import Path

import pytest

from helpers.training_rows import Row, row_of, write_rows
from scripts.common.errors import UserError
from scripts.data import addresses, prepare_dataset
from scripts.data.settings import REFUSE_ALL
from scripts.data.sources import parse_source
from scripts.train.ports import free_port


def prepare(root: Path, sources: list[str], output_path: Path, seed: int = 0) -> subprocess.CompletedProcess[str]:
    command = [".venv/bin/python", "scripts", "data.prepare_dataset", "--sources", json.dumps(sources)]
    command += ["--seed", str(seed), "--output", str(output_path)]
    return subprocess.run(command, cwd=root, text=True, capture_output=True)


def read_rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sources_follow_each_other_and_picture_paths_become_absolute(root: Path, tmp_path: Path) -> None:
    first = write_rows(tmp_path / "a/first.jsonl", [row_of("a", ["images/0.png"]), row_of("b", ["/elsewhere/1.png"])])
    second = write_rows(tmp_path / "b/second.jsonl", [row_of("c", ["2.png", "3.png"])])
    output_path = tmp_path / "out.jsonl"
    finished = prepare(root, [str(second), str(first)], output_path)
    assert finished.returncode == 0, finished.stderr
    rows = read_rows(output_path)
    assert [row["messages"][1]["content"] for row in rows] == ["c", "a", "b"]
    assert [row["images"] for row in rows] == [
        [str(tmp_path / "b/2.png"), str(tmp_path / "b/3.png")],
        [str(tmp_path / "a/images/0.png")],
        ["/elsewhere/1.png"],
    ]
    assert "rows 2 to 3 are from" in finished.stderr


def test_the_same_seed_draws_the_same_rows_and_another_seed_others(root: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row_of(str(i), [f"{i}.png"]) for i in range(50)])
    drawn = []
    for seed in (0, 0, 1):
        assert prepare(root, [f"{path}#20"], tmp_path / "out.jsonl", seed).returncode == 0
        drawn.append((tmp_path / "out.jsonl").read_text())
    assert drawn[0] == drawn[1] != drawn[2]
    names = [row["messages"][1]["content"] for row in map(json.loads, drawn[0].splitlines())]
    assert len(set(names)) == 20


def test_a_file_that_is_not_there_is_not_taken_for_an_id(root: Path, tmp_path: Path) -> None:
    finished = prepare(root, [str(tmp_path / "rows.jsonl")], tmp_path / "out.jsonl")
    assert finished.returncode == 1
    assert "rows.jsonl not found" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_broken_line_leaves_the_earlier_result_and_names_file_and_row(root: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row_of("a", []), row_of("b", [])])
    output_path = tmp_path / "out/stage1.jsonl"
    assert prepare(root, [str(path)], output_path).returncode == 0
    earlier = output_path.read_text()
    path.write_text(path.read_text() + '{"messages": [')
    finished = prepare(root, [str(path)], output_path)
    assert finished.returncode == 1
    assert f"{path}, line 3: not valid JSON" in finished.stderr
    assert output_path.read_text() == earlier
    assert [p.name for p in output_path.parent.iterdir()] == ["stage1.jsonl"]


def test_a_row_whose_picture_cannot_be_fetched_for_want_of_a_network_is_named_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_PAUSES_S", ())
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    rows = [row_of("a", []), row_of("b", [f"http://127.0.0.1:{free_port('127.0.0.1')}/x.png"])]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=rf"{path}, line 2: http://127\.0\.0\.1:\d+/x\.png: could not be fetched"):
        prepare_dataset.prepare([parse_source(str(path))], 0, REFUSE_ALL, tmp_path / "out.jsonl", tmp_path / "pictures")
    assert not (tmp_path / "out.jsonl").exists()
