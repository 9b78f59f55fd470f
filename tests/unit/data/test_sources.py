"""How a source is written, and which of its rows are taken."""

from collections import Counter
from pathlib import Path

import pytest

from helpers.rubbish import put
from helpers.training_rows import row_of, write_rows
from scripts.common.errors import UserError
from scripts.data.sources import chosen_rows, parse_source, parse_sources


def test_rows_are_drawn_from_all_that_there_are() -> None:
    drawn = {index for seed in range(40) for index in chosen_rows(30, 5, seed, "a")}
    assert drawn == set(range(30))


def test_more_rows_than_there_are_repeat_every_row_as_often_and_draw_the_rest() -> None:
    counts = Counter(chosen_rows(8, 19, 0, "a"))
    assert sorted(counts.values()) == [2] * 5 + [3] * 3


def test_a_number_of_rows_that_would_fill_the_disk_is_refused() -> None:
    assert len(chosen_rows(5, 504, 0, "a")) == 504
    with pytest.raises(UserError, match="a: 505 of 5 rows wanted, so each 101 times; expected at most 100 times"):
        chosen_rows(5, 505, 0, "a")


@pytest.mark.parametrize(
    ("kind", "fault"),
    [("a directory", "is a directory"), ("a pipe", "is a pipe"), ("a link to itself", "cannot be reached")],
)
def test_what_is_no_file_is_no_source(tmp_path: Path, kind: str, fault: str) -> None:
    put(kind, tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match=rf"rows.jsonl {fault}.*; expected training rows"):
        parse_source(str(tmp_path / "rows.jsonl"))


def test_a_file_with_a_number_sign_in_its_name_is_that_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows#2.jsonl", [row_of("a", [])])
    source = parse_source(str(path))
    assert (source.name, source.num_wanted, source.is_file) == (str(path), None, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows.jsonl#many", "expected the number of rows"),
        ("id#0", "expected the number"),
        ("id#٣", "expected the number"),
        ("id#" + "9" * 5000, "expected the number"),
        ("#5", "nothing found before the #"),
        ("a" * 300 + ".jsonl", "cannot be reached"),
    ],
)
def test_a_number_of_rows_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_source(text)


@pytest.mark.parametrize("text", ["rows.jsonl", '"rows.jsonl"', "[1]", "{}", "[]", '["\\ud800"]', "[" * 100_000])
def test_sources_that_are_no_list_of_names_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected a JSON list of files and ids of datasets"):
        parse_sources(text)
