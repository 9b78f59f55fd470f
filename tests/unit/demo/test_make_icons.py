"""The example of one's own files is sound, and each icon has one right answer."""

import json
import sys
from pathlib import Path

import pytest

from scripts.demo import make_icons
from scripts.questions.own_tables import read_own_table


@pytest.mark.parametrize("name", make_icons.MEANINGS)
def test_a_question_has_four_meanings_of_which_one_is_the_icons(name: str) -> None:
    options, right = make_icons.options_of(name)
    assert len(set(options.values())) == 4
    assert options[right] == make_icons.MEANINGS[name]


def test_both_benchmarks_ask_the_same_of_pictures_that_no_row_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--output-dir", str(tmp_path / "mine")])
    make_icons.main()
    table = read_own_table(tmp_path / "mine/questions.tsv", "vlmevalkit")
    listed = [json.loads(line) for line in (tmp_path / "mine/questions.jsonl").read_text().splitlines()]
    assert list(table["answer"]) == [question["answer"] for question in listed]
    trained = {row["images"][0] for row in map(json.loads, (tmp_path / "mine/rows.jsonl").read_text().splitlines())}
    asked = {path for question in listed for path in question["images"]}
    assert all((tmp_path / "mine" / path).is_file() for path in trained | asked)
    assert not trained & asked
