"""What is done around the two children, one that asks and one that answers."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers.evaluation_inputs import answer, question, serve_settings, vlmevalkit_settings
from scripts.common.errors import UserError
from scripts.common.reading import read_object
from scripts.common.units import duration
from scripts.evaluate import question_loop
from scripts.evaluate.answer_log import Answer, line_of
from scripts.evaluate.question_loop import Task
from scripts.evaluate.task_file import HarnessTask
from scripts.serve.command import Serving
from scripts.serve.server import ModelServer

FAILURE = {"prediction": "Failed to obtain answer via API.", "finish_reason": None, "error": "HTTP 500: no memory"}


class Sleepers(NamedTuple):
    """Two processes that only live, in place of the children."""

    server: subprocess.Popen[bytes]
    harness: subprocess.Popen[bytes]


class Clock:
    """In place of the module time: nothing is waited for, and sleeping alone takes time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    command = [sys.executable, "-c", "import time; time.sleep(3600)"]
    with subprocess.Popen(command) as server, subprocess.Popen(command) as harness:
        yield Sleepers(server, harness)
        server.kill()
        harness.kill()


def task_in(directory: Path, *seeds: int) -> Task:
    """100 questions, for seed 0 alone if no others are given."""
    return Task(
        directory=directory,
        key="key",
        backend="vlmevalkit",
        dataset="Digits",
        tsv=directory / "Digits.tsv",
        is_original=True,
        is_blind=False,
        settings=vlmevalkit_settings(),
        seeds=seeds or (0,),
        questions=[question(str(number)) for number in range(100)],
        smoke_picture="",
        serving=Serving(Path("python"), directory, serve_settings()),
    )


def write_answers(task: Task, answers: list[Answer], cut_off: str = "", seed: int = 0) -> None:
    """The file of one seed, which may end with a line that is not whole."""
    lines = [line_of(each, task.key_of(seed)) for each in answers]
    task.answers_path(seed).write_text("".join(lines) + cut_off)


def watch(sleepers: Sleepers, directory: Path, answers: list[Answer], log: Callable[[str], None]) -> None:
    """Watches an evaluation of 100 questions in which two were answered before, and these are while it is watched."""
    task = task_in(directory)
    before = [answer("98"), answer("99")]
    write_answers(task, before)
    (directory / "server.log").write_text("")

    class Growing(ModelServer):
        def require_alive(self) -> None:
            write_answers(task, [*before, *answers], '{"index": "3", "predi')  # one is being written
            (directory / "begun").touch()
            super().require_alive()

    server = Growing(sleepers.server, 1, "model", directory / "server.log", 60)
    question_loop.watch_answers([server], sleepers.harness, task, directory, log)


def test_a_start_at_which_several_questions_fail_is_not_continued(
    sleepers: Sleepers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(question_loop, "PROGRESS_S", 0.0)
    watch(sleepers, tmp_path, [answer(str(number), **FAILURE) for number in range(5)], lambda line: None)
    assert sleepers.server.poll() is sleepers.harness.poll() is None


def test_the_progress_counts_what_was_answered_before_and_its_rate_does_not(
    sleepers: Sleepers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(question_loop, "time", clock)
    said: list[tuple[float, str]] = []

    def kill_the_server_after_a_line(line: str) -> None:
        said.append((clock.now_s, line))
        sleepers.server.kill()
        sleepers.server.wait()

    with pytest.raises(UserError, match="killed by signal 9"):
        watch(sleepers, tmp_path, [answer(str(number)) for number in range(3)], kill_the_server_after_a_line)
    [(duration_s, line)] = said
    assert duration_s == pytest.approx(question_loop.PROGRESS_S, abs=2 * question_loop.POLL_S)
    rate = 3 / duration_s
    assert line == f"answered 5 of 100, {rate:.1f} a second, about {duration(95 / rate)} left"


def test_variables_that_would_change_what_vlmevalkit_does_are_taken_out(tmp_path: Path) -> None:
    inherited = {
        "HOME": "/h", "OPENAI_API_BASE": "https://elsewhere", "http_proxy": "http://proxy", "PRED_FORMAT": "xlsx",
        "LMUData": "/theirs", "MMEVAL_ROOT": "/theirs", "SPLIT_THINK": "1",
    }  # fmt: skip
    environment = question_loop.harness_environment(inherited, tmp_path / "lmu_data")
    assert environment["HOME"] == "/h"
    assert (environment["LMUData"], environment["PRED_FORMAT"]) == (str(tmp_path / "lmu_data"), "tsv")
    assert not environment.keys() & {"OPENAI_API_BASE", "http_proxy", "MMEVAL_ROOT", "SPLIT_THINK"}


def test_the_answers_of_one_seed_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    task = task_in(tmp_path, 3, 4)
    write_answers(task, [answer("0"), answer("1")], seed=3)
    task.answers_path(4).write_bytes(task.answers_path(3).read_bytes())  # a copy, signed for seed 3
    assert task.num_answers == 200
    assert {seed: len(answers) for seed, answers in task.answers().items()} == {3: 2, 4: 0}
    assert task.keep_sound_answers() == 2


def test_what_evalscope_is_to_do_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    task = task_in(tmp_path, 3, 4)
    written = read_object(HarnessTask, question_loop.write_task(task, tmp_path))
    assert (written.settings, written.served_name) == (task.settings, "Qwen3-VL")
    assert written.indices == sorted(task.indices)
    assert [(round_.seed, round_.key) for round_ in written.rounds] == [(3, "key:3"), (4, "key:4")]
