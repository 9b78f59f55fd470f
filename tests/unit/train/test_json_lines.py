"""Lines that are appended come back, and a line that a kill cut off does no harm."""

from pathlib import Path

from scripts.train.json_lines import append_line, read_lines


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "absent.jsonl")) == []


def test_lines_that_were_cut_off_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"step": 1})
    with open(path, "a") as file:
        file.write('{"step": 2, "num_sam\n\n[1]\n')
    append_line(path, {"step": 3})
    assert list(read_lines(path)) == [{"step": 1}, {"step": 3}]
