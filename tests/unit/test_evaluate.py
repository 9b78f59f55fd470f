"""What evaluate.py does around its two children."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluate
import pytest

from common.errors import UserError
from common.model_server import ModelServer

FAILED = {"prediction": "Failed to obtain answer via API.", "finish_reason": None, "error": "HTTP 500: no memory"}


@pytest.fixture
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for both children: it lives and says nothing."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def watch(sleeping: subprocess.Popen[bytes], directory: Path, answers: list[dict[str, Any]], said: list[str]) -> None:
    lines = [json.dumps({"index": str(number), **answer}) + "\n" for number, answer in enumerate(answers)]
    (directory / "answers.jsonl").write_text("".join(lines))
    server = ModelServer(sleeping, 1, "model", directory / "server.log", 60)
    evaluate.watch_answers(server, sleeping, directory, 100, said.append)


def test_an_evaluation_in_which_several_questions_fail_is_not_continued(
    sleeping: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "PROGRESS_S", 0.0)
    with pytest.raises(
        UserError, match=r"5 questions \(0, 1, 2, 3, 4\) of 100 failed at the server: HTTP 500: no memory"
    ):
        watch(sleeping, tmp_path, [FAILED] * 5, [])


def test_the_progress_says_how_many_are_answered(
    sleeping: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "PROGRESS_S", 0.0)
    said: list[str] = []

    def kill_after_a_line(line: str) -> None:
        said.append(line)
        sleeping.kill()

    (tmp_path / "server.log").write_text("")
    lines = [
        json.dumps({"index": str(number), "prediction": "B", "finish_reason": "stop", "error": None})
        for number in range(3)
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines) + '\n{"index": "3", "predi')  # one is being written
    server = ModelServer(sleeping, 1, "model", tmp_path / "server.log", 60)
    with pytest.raises(UserError, match="killed by signal 9"):
        evaluate.watch_answers(server, sleeping, tmp_path, 100, kill_after_a_line)
    assert said[0].startswith("answered 3 of 100, ")


def test_the_name_of_a_run_changes_with_the_checkpoint_and_with_each_setting() -> None:
    identity = {"checkpoint": "ab", "benchmark": "Digits", "settings": {"temperature": 0}, "seed": 0}
    changes: list[dict[str, Any]] = [{}, {"checkpoint": "cd"}, {"settings": {"temperature": 1}}, {"seed": 1}]
    assert len({evaluate.key_of({**identity, **change}) for change in changes}) == 4


def test_two_evaluations_never_share_a_directory(tmp_path: Path) -> None:
    first, second = (evaluate.fresh_directory(tmp_path, "key") for _ in range(2))
    with first, pytest.raises(UserError, match="is running already"):
        second.__enter__()


def test_a_run_starts_from_an_empty_directory_and_touches_nothing_else(tmp_path: Path) -> None:
    for name in ("key/old", "other/old", "mine"):
        (tmp_path / name).mkdir(parents=True)
    with evaluate.fresh_directory(tmp_path, "key") as directory:
        assert list(directory.iterdir()) == []
    assert (tmp_path / "other/old").exists()
    assert (tmp_path / "mine").exists()


def test_variables_that_would_change_what_vlmevalkit_does_are_taken_out(tmp_path: Path) -> None:
    inherited = {
        "HOME": "/h", "OPENAI_API_BASE": "https://elsewhere", "http_proxy": "http://proxy", "PRED_FORMAT": "xlsx",
        "LMUData": "/theirs", "MMEVAL_ROOT": "/theirs", "SPLIT_THINK": "1",
    }  # fmt: skip
    environment = evaluate.harness_environment(inherited, tmp_path)
    assert environment["HOME"] == "/h"
    assert (environment["LMUData"], environment["PRED_FORMAT"]) == (str(tmp_path), "tsv")
    assert not environment.keys() & {"OPENAI_API_BASE", "http_proxy", "MMEVAL_ROOT", "SPLIT_THINK"}
