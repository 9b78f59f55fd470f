"""What is proven after a training: samples, resumes, times."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.train.losses import LossPoint
from scripts.train.metrics import Resume
from scripts.train.proof import check_resumes, check_samples, peak_gpu_memory_gib, read_steps_of_ranks, wall_time_s
from scripts.train.run import Run
from scripts.train.starts import attempts_path
from scripts.train.step_records import StepRecord
from scripts.train.watch_files import Begin


def records(num_samples: list[int]) -> dict[int, StepRecord]:
    return {step: StepRecord(step, count, 1, 1.0, 0.0) for step, count in enumerate(num_samples, start=1)}


def test_samples_are_added_over_ranks() -> None:
    assert check_samples("stage1", [records([2, 1]), records([2, 1])], [4, 2]) == 6


def test_a_step_that_saw_fewer_samples_than_dealt_is_named() -> None:
    with pytest.raises(UserError, match="stage1: step 2 saw 1 samples, 2 expected"):
        check_samples("stage1", [records([2, 1]), records([2, 0])], [4, 2])


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_rank_without_a_record_of_some_step_is_named(run: Run) -> None:
    begin = Begin(0, 2, 2, {}, {}, 0, [], [2, 2])
    write_lines(run.watch.steps(0), [vars(record) for record in records([1, 1]).values()])
    write_lines(run.watch.steps(1), [vars(record) for record in records([1]).values()])
    with pytest.raises(UserError, match=r"steps-rank1\.jsonl: no record of step 2 \(1 such\)"):
        read_steps_of_ranks(run, begin)


def losses(*values: float) -> list[LossPoint]:
    return [LossPoint(step, loss) for step, loss in enumerate(values, start=1)]


def write_resume_steps(run: Run, *steps: int) -> None:
    write_lines(attempts_path(run.run_dir), [{"start_time_s": 0, "resume_step": step} for step in steps])


def test_each_resume_is_reported_with_the_losses_around_it(run: Run) -> None:
    write_resume_steps(run, 0, 2, 3)
    assert check_resumes(run, losses(2.0, 1.5, 1.4, 1.2)) == [Resume(2, 1.5, 1.4), Resume(3, 1.4, 1.2)]


def test_two_starts_at_the_same_step_are_one_resume(run: Run) -> None:
    write_resume_steps(run, 0, 2, 2)
    assert [resume.step for resume in check_resumes(run, losses(2.0, 1.5, 1.4))] == [2]


def test_a_resume_that_began_anew_is_an_error(run: Run) -> None:
    write_resume_steps(run, 2)
    with pytest.raises(UserError, match=r"the loss after the resume at step 2 is 9\.0000, at most 2\.5000 expected"):
        check_resumes(run, losses(1.0, 0.9, 9.0))


def test_the_time_of_a_killed_start_counts_to_its_last_step_and_the_pause_does_not(run: Run) -> None:
    starts = [{"start_time_s": 100.0, "resume_step": 0}, {"start_time_s": 500.0, "resume_step": 1}]
    write_lines(attempts_path(run.run_dir), starts)
    steps = [StepRecord(1, 1, 1, 1.0, 110.0), StepRecord(2, 1, 1, 1.0, 120.0), StepRecord(2, 1, 1, 1.0, 530.0)]
    write_lines(run.watch.steps(0), [vars(step) for step in steps])
    assert wall_time_s(run) == 20.0 + 30.0


def test_the_peak_of_gpu_memory_is_that_of_the_rank_with_most() -> None:
    ranks = [{1: StepRecord(1, 1, 1, 1.0, 0.0, peak)} for peak in (3.5, 4.25, None)]
    assert peak_gpu_memory_gib(ranks) == 4.25
    assert peak_gpu_memory_gib(ranks[2:]) is None
