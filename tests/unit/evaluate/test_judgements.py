"""A judgement belongs to one answer, and is recognised when it was made of another."""

from pathlib import Path

import pytest

from helpers.evaluation_inputs import answer, judgement
from scripts.evaluate.judgements import read_judgements, same_answer, write_judgements


def test_judgements_are_read_as_they_were_written(tmp_path: Path) -> None:
    given = [judgement(), judgement("1", "a\u2028b\n", None, metric="anls", options={}, score=0.5)]
    write_judgements(tmp_path / "j.jsonl", given)
    assert read_judgements(tmp_path / "j.jsonl") == given
    assert read_judgements(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("given", "judged"),
    [("B", "B"), (" B\n", "B"), ("2", "2.0"), ("1e3", "1000"), ("None", "nan"), ("", "nan"), ("n/a", "")],
)
def test_an_answer_is_recognised_after_a_table(given: str, judged: str) -> None:
    assert same_answer(given, judged)


@pytest.mark.parametrize(("given", "judged"), [("B", "A"), ("2", "3.0"), ("B", "nan"), ("nan", "B"), ("2", "two")])
def test_another_answer_is_told_apart(given: str, judged: str) -> None:
    assert not same_answer(given, judged)


def test_the_judgement_of_this_very_answer_is_not_stale() -> None:
    assert not judgement().is_stale(answer())
    assert judgement().is_stale(answer(prediction="A"))
