"""A training is started again as long as it makes progress, and not for ever when it makes none."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.train.run import Run
from scripts.train.starts import (
    attempts_path,
    check_progress,
    failures_path,
    read_attempts,
    read_failed_starts,
    record_attempt,
    record_failed_start,
)


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_starts(run: Run, *resume_steps: int) -> None:
    starts = [
        {"start_time_s": float(number), "resume_step": step, "slurm_job_id": None}
        for number, step in enumerate(resume_steps)
    ]
    write_lines(attempts_path(run.run_dir), starts)


def test_what_is_recorded_of_a_start_is_read_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    record_attempt(run.run_dir, 0)
    record_failed_start(run.run_dir, "out of space")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    record_attempt(run.run_dir, 5)
    attempts = read_attempts(run.run_dir)
    assert [(attempt.resume_step, attempt.slurm_job_id) for attempt in attempts] == [(0, None), (5, "41")]
    assert [failed.message for failed in read_failed_starts(run.run_dir)] == ["out of space"]
    keys = ["start_time_s", "resume_step", "host", "slurm_job_id"]
    assert list(json.loads(attempts_path(run.run_dir).read_text().splitlines()[0])) == keys


def test_a_training_that_saves_a_checkpoint_in_each_job_may_take_any_number_of_jobs(run: Run) -> None:
    write_starts(run, 0, 5, 10, 15, 20)
    check_progress(run, attempt=6, step=25)


def test_a_second_failure_in_a_row_is_tried_again_and_a_third_is_not(run: Run) -> None:
    write_starts(run, 0, 5)
    check_progress(run, attempt=3, step=5)
    write_starts(run, 0, 5, 5)
    failures = [{"time_s": 0.5, "message": "old"}, {"time_s": 2.5, "message": "out of space"}]
    write_lines(failures_path(run.run_dir), failures)
    with pytest.raises(
        UserError,
        match=r"stage1: the last 2 starts saved no checkpoint beyond step 5; not starting again.*out of space",
    ):
        check_progress(run, attempt=4, step=5)


def test_the_reason_of_an_earlier_start_is_not_taken_for_that_of_a_killed_one(run: Run) -> None:
    write_starts(run, 0, 0)
    write_lines(failures_path(run.run_dir), [{"time_s": 0.5, "message": "old"}])
    with pytest.raises(UserError, match="Last failure: none recorded"):
        check_progress(run, attempt=3, step=0)


def test_the_starts_of_a_job_that_slurm_requeued_are_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = [
        {"start_time_s": 1.0, "resume_step": step, "slurm_job_id": job}
        for step, job in ((0, "7"), (20, "8"), (20, "8"), (20, "9"))
    ]
    write_lines(attempts_path(run.run_dir), starts)
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    check_progress(run, 3, 20)
    monkeypatch.setenv("SLURM_JOB_ID", "10")
    with pytest.raises(UserError, match="the last 2 starts"):
        check_progress(run, 4, 20)


def test_a_command_given_anew_tries_again(run: Run) -> None:
    write_starts(run, 0, 0, 0)
    check_progress(run, attempt=1, step=0)
    check_progress(run, attempt=2, step=0)
