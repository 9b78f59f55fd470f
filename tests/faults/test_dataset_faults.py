"""Training rows that would break or silently spoil a training: all named with their rows, exit status 1, no report."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Row = dict[str, Any]


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Four sound rows, each with a picture of its own."""
    result = []
    for number in range(4):
        path = tmp_path / f"{number}.png"
        Image.effect_noise((32, 24), 50).save(path)
        messages = [{"role": "user", "content": "<image>what?"}, {"role": "assistant", "content": f"answer {number}"}]
        result.append({"messages": messages, "images": [str(path)]})
    return result


def check(root: Path, tmp_path: Path, rows: list[Row]) -> subprocess.CompletedProcess[str]:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check_file(root, tmp_path)


def check_file(root: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [".venv/bin/python", "scripts", "data.check_dataset", "--dataset", str(tmp_path / "rows.jsonl")]
    command += ["--output", str(tmp_path / "check.json")]
    return subprocess.run(command, cwd=root, text=True, capture_output=True)


def assert_refused(finished: subprocess.CompletedProcess[str], tmp_path: Path, *words: str) -> None:
    assert finished.returncode == 1
    for word in words:
        assert word in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "check.json").exists()


def test_the_sound_rows_pass(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    assert check(root, tmp_path, rows).returncode == 0


@pytest.mark.parametrize("num_bytes_left", [0, 4, 60, -1])
def test_a_picture_that_is_cut_off_is_refused_with_its_row(
    root: Path, tmp_path: Path, rows: list[Row], num_bytes_left: int
) -> None:
    path = tmp_path / "2.png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if num_bytes_left < 0 else content[:num_bytes_left])
    assert_refused(check(root, tmp_path, rows), tmp_path, "picture unreadable: 1", f"row 3: {path}", "1 of 4 rows")


def test_a_jpeg_that_lacks_its_last_lines_is_refused(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    """Its header is sound, so that only decoding all of it finds the damage."""
    path = tmp_path / "photo.jpg"
    Image.effect_noise((200, 200), 80).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    rows[1]["images"] = [str(path)]
    assert_refused(check(root, tmp_path, rows), tmp_path, "picture unreadable: 1", f"row 2: {path}")


def test_a_file_that_is_no_picture_is_refused(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    (tmp_path / "0.png").write_text("<html>404 Not Found</html>")
    assert_refused(check(root, tmp_path, rows), tmp_path, "picture unreadable: 1", "row 1: ")


def test_a_picture_too_long_for_the_processor_is_refused(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    Image.new("L", (2010, 10)).save(tmp_path / "0.png")
    assert_refused(check(root, tmp_path, rows), tmp_path, "2010 x 10: longer than 200 times")


def test_a_missing_picture_is_refused_with_every_row_that_shows_it(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    rows[3]["images"] = rows[0]["images"]
    (tmp_path / "0.png").unlink()
    assert_refused(check(root, tmp_path, rows), tmp_path, "picture not found: 2", "    row 1: ", "    row 4: ")


def test_a_relative_picture_path_is_refused(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    rows[0]["images"] = ["0.png"]
    assert_refused(check(root, tmp_path, rows), tmp_path, "picture path not absolute: 1", "row 1: 0.png")


def test_rows_with_and_without_pictures_pass_together(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    rows[2] = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]}
    assert check(root, tmp_path, rows).returncode == 0


def test_a_tag_without_its_picture_is_refused(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    rows[1]["messages"][0]["content"] = "<image><image>which?"
    assert_refused(check(root, tmp_path, rows), tmp_path, "row 2: 1 pictures, 2 <image> in the text")


def test_a_row_without_an_answer_is_refused(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    del rows[1]["messages"][1]
    assert_refused(check(root, tmp_path, rows), tmp_path, "no assistant turn: 1", "row 2: roles: user")


def test_an_empty_dataset_is_refused(root: Path, tmp_path: Path) -> None:
    assert_refused(check(root, tmp_path, []), tmp_path, "rows.jsonl: empty", "at least one row")


def test_a_dataset_that_is_not_there_is_refused(root: Path, tmp_path: Path) -> None:
    assert_refused(check_file(root, tmp_path), tmp_path, "rows.jsonl: not found")


def test_broken_lines_are_refused_with_their_rows(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    lines = [json.dumps(row).encode() for row in rows]
    lines[1], lines[3] = b"", b'{"messages": "\xff"}'
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert_refused(check_file(root, tmp_path), tmp_path, "not valid JSON: 2", "    row 2: ", "    row 4: ")


def test_all_problems_are_reported_together(root: Path, tmp_path: Path, rows: list[Row]) -> None:
    (tmp_path / "0.png").unlink()
    rows[1]["messages"][1]["content"] = ""
    rows[2] = ["no", "object"]
    finished = check(root, tmp_path, rows)
    assert_refused(
        finished, tmp_path, "picture not found: 1", "empty assistant turn: 1", "no messages: 1", "3 of 4 rows"
    )


def test_preparing_an_empty_file_is_refused_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    output_path = tmp_path / "out/stage1.jsonl"
    command = [".venv/bin/python", "scripts", "data.prepare_dataset", "--seed", "0"]
    command += ["--sources", json.dumps([str(tmp_path / "rows.jsonl")]), "--output", str(output_path)]
    finished = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert finished.returncode == 1
    assert "rows.jsonl: empty" in finished.stderr
    assert not output_path.parent.exists()
