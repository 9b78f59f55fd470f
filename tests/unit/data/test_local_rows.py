"""Rows of a user's file keep their pictures, by absolute paths."""

from pathlib import Path

import pytest

from helpers.training_rows import row_of, write_rows
from scripts.data.local_rows import read_local
from scripts.data.sources import parse_source


def test_a_relative_source_gives_absolute_picture_paths_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "data/rows.jsonl", [row_of("a", ["0.png"])])
    monkeypatch.chdir(tmp_path)
    source = parse_source("data/rows.jsonl")
    (taken,) = read_local(source, 0)
    assert taken.row is not None
    assert taken.row["images"] == [str(Path.cwd() / "data/0.png")]
