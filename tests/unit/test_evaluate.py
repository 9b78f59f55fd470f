"""What evaluate.py does around the asking."""

from pathlib import Path
from typing import Any

import evaluate
import pytest

from common.errors import UserError


def test_the_name_of_a_run_changes_with_the_checkpoint_and_with_each_setting() -> None:
    identity = {"checkpoint": "ab", "benchmark": "Digits", "settings": {"temperature": 0}, "seed": 0}
    changes: list[dict[str, Any]] = [{}, {"checkpoint": "cd"}, {"settings": {"temperature": 1}}, {"seed": 1}]
    assert len({evaluate.key_of({**identity, **change}) for change in changes}) == 4


def test_two_evaluations_never_share_a_directory(tmp_path: Path) -> None:
    first, second = (evaluate.held_directory(tmp_path, "key") for _ in range(2))
    with first, pytest.raises(UserError, match="is running already"):
        second.__enter__()


def test_a_run_finds_nothing_of_an_earlier_one_but_its_answers(tmp_path: Path) -> None:
    for name in ("key/start1", "other/old", "mine"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("answers-0.jsonl", "Digits_exact_matching_result.pkl"):
        (tmp_path / "key" / name).touch()
    with evaluate.held_directory(tmp_path, "key") as directory:
        assert [path.name for path in directory.iterdir()] == ["answers-0.jsonl"]
    assert (tmp_path / "other/old").exists()
    assert (tmp_path / "mine").exists()
