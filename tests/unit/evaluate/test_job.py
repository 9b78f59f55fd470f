"""What evaluate.py and answer_share.py do around the asking."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import benchmark_rows, write_rows
from scripts.common.errors import UserError
from scripts.evaluate import job as evaluation
from scripts.questions.tables import read_benchmark


def test_the_name_of_a_run_changes_with_the_checkpoint_and_with_each_setting() -> None:
    identity = {"checkpoint": "ab", "benchmark": "Digits", "settings": {"temperature": 0}, "seed": 0}
    changes: list[dict[str, Any]] = [{}, {"checkpoint": "cd"}, {"settings": {"temperature": 1}}, {"seed": 1}]
    assert len({evaluation.key_of({**identity, **change}) for change in changes}) == 4


def test_two_evaluations_never_share_a_directory(tmp_path: Path) -> None:
    first, second = (evaluation.held_directory(tmp_path, "key") for _ in range(2))
    with first, pytest.raises(UserError, match="is running already"):
        second.__enter__()


def test_a_run_finds_nothing_of_an_earlier_one_but_its_answers(tmp_path: Path) -> None:
    for name in ("key/start1", "other/old", "mine"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("answers-0.jsonl", "Digits_exact_matching_result.pkl"):
        (tmp_path / "key" / name).touch()
    with evaluation.held_directory(tmp_path, "key") as directory:
        assert [path.name for path in directory.iterdir()] == ["answers-0.jsonl"]
    assert (tmp_path / "other/old").exists()
    assert (tmp_path / "mine").exists()


@pytest.fixture
def identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What decides the answers of an evaluation, by control and first seed."""
    tsv = write_rows(benchmark_rows(2), tmp_path / "b.tsv")
    monkeypatch.setattr(evaluation, "versions", lambda *of: {})
    monkeypatch.setattr(evaluation, "model_sha256", lambda model_dir: "ab")
    serve: dict[str, Any] = {"backend": "transformers", "environment": {}, "flags": {}}

    def identity(control: str, seed: int) -> dict[str, Any]:
        asked = ("vlmevalkit", "b", tsv, control, serve, {}, seed, 2)
        return evaluation.identity_of(evaluation.Evaluation("model", tmp_path, *asked, tmp_path, tmp_path))

    return identity


def test_answers_of_a_seed_are_kept_when_others_are_asked_for_but_not_those_about_other_shuffled_pictures(
    identities: Callable[..., dict[str, Any]],
) -> None:
    for control in ("none", "blind"):
        assert identities(control, 0) == identities(control, 1)
    assert identities("shuffled", 0) != identities("shuffled", 1)


def test_a_benchmark_without_any_picture_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "image": ""} for row in benchmark_rows(3)]
    tsv = write_rows(rows, tmp_path / "b.tsv")
    asked = evaluation.Evaluation("m", tmp_path, "native", "b", tsv, "none", {}, {}, 0, 1, tmp_path, tmp_path)
    with pytest.raises(UserError, match="no question has a picture"):
        evaluation.prepare_task(asked, read_benchmark(tsv, needs_pictures=False), tmp_path, "key")
