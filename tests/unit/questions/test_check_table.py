"""One's own table is checked before a training, as the evaluation would judge it after."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from helpers.evaluation_inputs import picture
from scripts.common.errors import UserError
from scripts.common.files import md5_of_file
from scripts.questions import check_table
from scripts.questions.own_tables import read_own_table
from scripts.questions.tables import write_benchmark

ROWS = [
    {"index": "0", "question": "Which?", "image": picture("7"), "A": "1", "B": "7", "answer": "B"},
    {"index": "1", "question": "And here?", "image": picture("8"), "A": "8", "B": "7", "answer": "A"},
]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the program on two rows with changes of the second; the record's path."""

    def run(backend: str, **changes: str) -> Path:
        path, record_path = tmp_path / "own.tsv", tmp_path / "own.json"
        write_benchmark(pandas.DataFrame([ROWS[0], ROWS[1] | changes]), path)
        arguments = ["--benchmark-tsv", str(path), "--backend", backend, "--output", str(record_path)]
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        check_table.main()
        return record_path

    return run


@pytest.mark.parametrize("backend", ["vlmevalkit", "native"])
def test_a_sound_table_is_recorded_by_its_checksum(check: Callable[..., Path], backend: str) -> None:
    record_path = check(backend)
    record = json.loads(record_path.read_text())
    assert (record["num_questions"], record["md5"]) == (2, md5_of_file(record_path.with_suffix(".tsv")))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"answer": "C"}, "the answer of question 1 is 'C'; expected the letter of one of its options"),
        ({"question": "None"}, "question of question 1 is 'None', which VLMEvalKit reads as absent"),
        ({"image": ""}, "question 1 has no picture"),
        ({"image": "?" * 99}, "the picture of question 1 is not base64"),
        ({"image": "5"}, "question 1 refers to the picture of 5, which has none"),
        ({"index": "0"}, "index 0 stands on more than one row"),
    ],
)
def test_a_row_that_the_evaluation_would_refuse_is_refused_before(
    check: Callable[..., Path], tmp_path: Path, changes: dict[str, str], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        check("vlmevalkit", **changes)
    assert not (tmp_path / "own.json").exists()


def test_the_native_backend_asks_a_question_without_a_picture_but_no_table_without_any(
    check: Callable[..., Path],
) -> None:
    assert check("native", image="").exists()
    path = check("native").with_suffix(".tsv")
    write_benchmark(pandas.DataFrame([row | {"image": ""} for row in ROWS]), path)
    with pytest.raises(UserError, match="no question has a picture"):
        read_own_table(path, "native")


def test_a_split_whose_only_picture_cannot_be_exchanged_is_found_before_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the shuffled control is asked; the message names the user's own file."""
    path, own_path = tmp_path / "made.tsv", tmp_path / "mine.jsonl"
    write_benchmark(pandas.DataFrame(ROWS[:1]), path)
    arguments = ["--benchmark-tsv", str(path), "--backend", "vlmevalkit", "--output", str(tmp_path / "own.json")]
    monkeypatch.setattr(sys, "argv", ["x", *arguments, "--source", str(own_path)])
    check_table.main()
    monkeypatch.setattr(sys, "argv", ["x", *arguments, "--source", str(own_path), "--shuffled-by-seed", "0"])
    with pytest.raises(UserError, match=r"mine\.jsonl: split 'all' has one question with a picture") as caught:
        check_table.main()
    assert "made.tsv" not in str(caught.value)
