"""Rows of users' files: all of them, with their lines, as they are written there."""

import os
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.data.row_files import RowProblem, open_rows


def rows_of(path: Path) -> list[tuple[int, object]]:
    rows = open_rows(path)
    return [(rows.line_of(index), rows.row(index)) for index in range(len(rows))]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n\n  \n{"a": 2}', [(1, {"a": 1}), (4, {"a": 2})]),
        ("a.jsonl", '\ufeff{"a": 1}\r\n\r\n{"a": 2}\r\n', [(1, {"a": 1}), (3, {"a": 2})]),
        ("a.jsonl", '{"a": "x\u2028y"}\n{"a": "\x85"}\n', [(1, {"a": "x\u2028y"}), (2, {"a": "\x85"})]),
        ("a.json", '[{"a": 1}, {"a":\n 2},\n\n{"a": 3}]\n', [(1, {"a": 1}), (1, {"a": 2}), (4, {"a": 3})]),
        ("a.jsonl", '\n [\n{"a": "]"}]', [(3, {"a": "]"})]),
        ("a.json", '{"a": 1}\n{"a": 2}\n', [(1, {"a": 1}), (2, {"a": 2})]),
        (
            "a.csv",
            'a,b\r\n01,"x\r\ny"\r\n\r\n2020-01-01,\r\n',
            [(2, {"a": "01", "b": "x\r\ny"}), (5, {"a": "2020-01-01", "b": ""})],
        ),
        ("a.csv", "\ufeffa\nNA\n", [(2, {"a": "NA"})]),
    ],
)
def test_rows_are_read_with_their_lines(tmp_path: Path, name: str, content: str, expected: object) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert rows_of(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"a": "\\ud83d"}', "half a character"),
        (b'{"a": 1, "a": 2}', "key 'a' found twice"),
        (b'{"a": NaN}', "NaN"),
        (b"5", "int found"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    ],
)
def test_a_line_that_is_no_row_is_a_problem_of_its_own(tmp_path: Path, line: bytes, words: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    rows = open_rows(tmp_path / "a.jsonl")
    assert rows.row(0) == {"a": 1}
    assert rows.row(2) == {"a": 3}
    with pytest.raises(RowProblem, match=words):
        rows.row(1)


def test_a_row_of_a_table_with_too_few_cells_is_a_problem_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1\n1,2\n")
    rows = open_rows(tmp_path / "a.csv")
    with pytest.raises(RowProblem, match="1 cells found; expected 2"):
        rows.row(0)
    assert rows.row(1) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b'[{"a": 1},\n{"a": ]', "line 2: .* expected a row of the JSON array"),
        ("a.json", b'[{"a": 1}\n{"a": 2}]', "line 2: .* expected a comma or the end"),
        ("a.json", b'[{"a": 1}]\n\n{', "line 3: .* expected nothing after"),
        ("a.json", b'[{"a": 1},', "line 1: the end of the file found"),
        ("a.json", b"[]", "no rows found"),
        ("a.json", b"[" * 100_000, "line 1: "),
        ("a.json", b'["\xff"]', "not UTF-8"),
        ("a.csv", b'a\n"x', "line 2: no table"),
        ("a.csv", b"a,a\n1,2\n", "column 'a' found twice"),
        ("a.csv", b"a\n\xff\n", "not UTF-8"),
        ("a.csv", b"a,b\n", "no rows found"),
        ("a.jsonl", b"\n \n", "no rows found"),
        ("a.jsonl", b"", "empty"),
    ],
)
def test_a_file_that_holds_no_rows_is_refused_by_name(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.*{words}"):
        rows_of(tmp_path / name)


def test_a_pipe_is_refused_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="pipe"):
        open_rows(tmp_path / "a.jsonl")
