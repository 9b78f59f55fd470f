"""Answers survive an interruption only when they are whole, unchanged, and of the very same evaluation."""

import json
from pathlib import Path

import pytest

from helpers.evaluation_inputs import answer
from scripts.evaluate.answer_log import keep_sound_answers, line_of, read_answers

INDICES = {str(number) for number in range(4)}


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(lines))
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    answers = [answer("0", 'B\n"é"'), answer("1", "", finish_reason="length"), answer("2", error="HTTP 500")]
    path = write(tmp_path / "a", *(line_of(each, "key") for each in answers))
    assert read_answers(path, "key") == answers


def test_a_file_that_is_not_there_has_no_answers(tmp_path: Path) -> None:
    assert read_answers(tmp_path / "none", "key") == []


@pytest.mark.parametrize("end", range(0, len(line_of(answer("1"), "key")), 9))
def test_a_line_that_was_cut_off_is_not_believed(tmp_path: Path, end: int) -> None:
    path = write(tmp_path / "a", line_of(answer("0"), "key"), line_of(answer("1"), "key")[:end])
    assert read_answers(path, "key") == [answer("0")]
    with path.open("a") as file:  # the next writer begins where it was cut
        file.write(line_of(answer("2"), "key"))
    assert keep_sound_answers(path, "key", INDICES) in ([answer("0")], [answer("0"), answer("2")])


@pytest.mark.parametrize(
    "changed",
    [{"prediction": "A"}, {"index": "1"}, {"finish_reason": "length"}, {"error": "x"}, {"checksum": "0"}, {"more": 1}],
    ids=str,
)
def test_a_line_that_was_changed_is_not_believed(tmp_path: Path, changed: dict[str, str]) -> None:
    row = json.loads(line_of(answer("0"), "key"))
    path = write(tmp_path / "a", json.dumps(row | changed) + "\n", line_of(answer("3"), "key"))
    assert read_answers(path, "key") == [answer("3")]


@pytest.mark.parametrize("line", ["", "[]", "null", "{}", "7", "\x00\x80", '{"checksum": []}'])
def test_rubbish_is_not_believed(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a", line + "\n", line_of(answer("3"), "key"))
    assert read_answers(path, "key") == [answer("3")]


def test_an_answer_of_another_evaluation_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "a", line_of(answer("0"), "another"), line_of(answer("1"), "key"))
    assert read_answers(path, "key") == [answer("1")]


def test_failed_doubled_and_unknown_questions_are_asked_again(tmp_path: Path) -> None:
    answers = [
        answer("0"),
        answer("1", error="HTTP 500"),
        answer("2", "A"),
        answer("2", "B"),
        answer("3", "Failed to obtain answer via API."),
        answer("99"),
    ]
    path = write(tmp_path / "a", *(line_of(each, "key") for each in answers))
    assert keep_sound_answers(path, "key", INDICES) == [answer("0")]
    assert read_answers(path, "key") == [answer("0")]
