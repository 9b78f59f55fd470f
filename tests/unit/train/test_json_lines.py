"""Lines that are appended come back, and a line that a kill cut off does no harm."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.train.json_lines import append_line, read_lines, read_objects


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "absent.jsonl")) == []


def test_lines_that_were_cut_off_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"step": 1})
    with open(path, "a") as file:
        file.write('{"step": 2, "num_sam\n\n[1]\n')
    append_line(path, {"step": 3})
    assert list(read_lines(path)) == [{"step": 1}, {"step": 3}]


@dataclass(frozen=True)
class Line:
    """What a program wrote."""

    step: int
    host: str = ""


def test_lines_are_objects_or_the_file_and_the_key_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"step": 1, "host": "a"})
    assert read_objects(Line, path) == [Line(1, "a")]
    for edited, key in (
        ({"step": "many", "host": ""}, "step"),
        ({"host": ""}, "step"),
        ({"step": 1, "host": "", "x": 1}, "x"),
    ):
        path.write_text("")
        append_line(path, edited)
        with pytest.raises(UserError, match=rf"lines\.jsonl: {key}"):
            read_objects(Line, path)
