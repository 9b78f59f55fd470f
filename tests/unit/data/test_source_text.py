"""A source is a file or an id, perhaps with a number of rows; rules ask for the file before a program reads it."""

from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.data.source_text import file_of_source, split_source


@pytest.mark.parametrize(
    ("text", "name", "number", "file"),
    [
        ("rows.jsonl", "rows.jsonl", None, "rows.jsonl"),
        ("rows.jsonl#20", "rows.jsonl", 20, "rows.jsonl"),
        ("my rows#2.jsonl", "my rows#2.jsonl", None, "my rows#2.jsonl"),
        ("my rows#2.jsonl#3", "my rows#2.jsonl", 3, "my rows#2.jsonl"),
        ("owner/data:subset#7", "owner/data:subset", 7, None),
        ("owner/data", "owner/data", None, None),
    ],
)
def test_the_number_stands_behind_the_last_mark(text: str, name: str, number: int | None, file: str | None) -> None:
    assert split_source(text) == (name, number)
    assert file_of_source(text) == file


def test_an_existing_file_is_one_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rows #1"
    path.touch()
    assert split_source(str(path)) == (str(path), None)
    assert file_of_source(f"{path}#5") == str(path)


@pytest.mark.parametrize("number", ["0", "many", "", "-1", "1.5"])
def test_what_is_no_number_of_rows_is_refused(number: str) -> None:
    with pytest.raises(UserError, match="expected the number of rows to take"):
        split_source(f"owner/data#{number}")
