"""What is proven after a training: samples, resumes, times."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.trained_checkpoint import write_weights
from scripts.common.errors import UserError
from scripts.donors.model_files import model_sha256
from scripts.train.complete_checkpoints import mark_complete
from scripts.train.losses import LossPoint
from scripts.train.metrics import Resume
from scripts.train.proof import (
    check_resumes,
    check_samples,
    finish,
    peak_gpu_memory_gib,
    read_steps_of_ranks,
    wall_time_s,
)
from scripts.train.run import Run
from scripts.train.starts import attempts_path
from scripts.train.step_records import StepRecord
from scripts.train.watch_files import Begin, write_begin


def records(num_samples: list[int]) -> dict[int, StepRecord]:
    return {step: StepRecord(step, count, 1, 1.0, 0.0) for step, count in enumerate(num_samples, start=1)}


def test_samples_are_added_over_ranks() -> None:
    assert check_samples("stage1", [records([2, 1]), records([2, 1])], [4, 2]) == 6


def test_a_step_that_saw_fewer_samples_than_dealt_is_named() -> None:
    with pytest.raises(UserError, match="stage1: step 2 saw 1 samples, 2 expected"):
        check_samples("stage1", [records([2, 1]), records([2, 0])], [4, 2])


def test_a_step_that_saw_more_samples_than_dealt_is_named() -> None:
    with pytest.raises(UserError, match="stage1: step 1 saw 5 samples, 4 expected"):
        check_samples("stage1", [records([3, 1]), records([2, 1])], [4, 2])


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


FROZEN, TRAINED = "visual.patch_embed.proj.weight", "visual.merger.mlp.2.weight"


class Finished:
    """A training of two steps of four samples, which ended as it should; a test spoils one thing of it."""

    def __init__(self, run: Run) -> None:
        self.run = replace(run, model_dir=run.run_dir / "graft", num_rows=8)
        self.checkpoint = self.run.trainer_dir / "checkpoint-2"
        self.output_dir = run.run_dir / "out"
        self.begin = Begin(
            first_step=0,
            max_steps=2,
            num_processes=2,
            num_parameters={"aligner": 2},
            num_trainable_parameters={"aligner": 2},
            checkpoint_bytes=0,
            trainable=[f"model.{TRAINED}"],
            samples_per_step=[4, 4],
        )
        self.losses = (2.0, 1.5)
        self.resume_steps = [0]
        self.weights = {FROZEN: [1.0, 2.0], TRAINED: [3.5, 4.0]}
        self.steps = [[StepRecord(step, 2, 20, 0.5, 1.0, peak) for step in (1, 2)] for peak in (1.5, 2.5)]

    def spoil(self) -> None:
        """What somebody does between the last checkpoint and its proof."""

    def finish(self) -> dict[str, Any]:
        """The metrics of the exported checkpoint."""
        for directory in (self.run.model_dir, self.checkpoint):
            directory.mkdir(parents=True)
        write_weights(self.run.model_dir / "model.safetensors", {FROZEN: [1.0, 2.0], TRAINED: [3.0, 4.0]})
        (self.run.model_dir / "config.json").write_text("{}")
        write_weights(self.checkpoint / "model.safetensors", self.weights)
        history = [{"step": point.step, "loss": point.loss} for point in losses(*self.losses)]
        state = {"global_step": 2, "max_steps": 2, "log_history": history}
        (self.checkpoint / "trainer_state.json").write_text(json.dumps(state))
        write_begin(self.run.watch, self.begin)
        for rank, steps in enumerate(self.steps):
            write_lines(self.run.watch.steps(rank), [vars(step) for step in steps])
        write_resume_steps(self.run, *self.resume_steps)
        mark_complete(self.checkpoint, [self.run.watch.begin, *self.run.watch.all_steps])
        self.spoil()
        finish(self.run, self.checkpoint, ["the command"], self.output_dir, {"torch": "2"})
        metrics: dict[str, Any] = json.loads((self.output_dir / "metrics.json").read_text())
        return metrics


@pytest.fixture
def finished(run: Run) -> Finished:
    return Finished(run)


def refused(finished: Finished, match: str) -> None:
    with pytest.raises(UserError, match=match):
        finished.finish()
    assert not finished.output_dir.exists(), "nothing is exported of a training that was not proven"


def test_the_metrics_of_a_training_count_the_samples_tokens_and_tensors_of_all_ranks(finished: Finished) -> None:
    metrics = finished.finish()
    assert (metrics["num_samples_seen"], metrics["num_samples_expected"], metrics["num_tokens_seen"]) == (8, 8, 80)
    assert metrics["num_tokens_per_s"] == 80.0  # over the second that the ranks took together
    assert metrics["tensors_changed"] == {"vision_tower": 0, "aligner": 1, "language_model": 0}
    assert metrics["tensors_total"] == {"vision_tower": 1, "aligner": 1, "language_model": 0}
    assert (metrics["first_loss"], metrics["last_loss"], metrics["peak_gpu_memory_gib"]) == (2.0, 1.5, 2.5)
    assert metrics["num_rows_left_out_each_epoch"] == 0
    assert metrics["checkpoint_sha256"] == model_sha256(finished.output_dir / "checkpoint")


def test_a_training_that_lost_a_sample_is_not_exported(finished: Finished) -> None:
    finished.steps[1][1] = replace(finished.steps[1][1], num_samples=1)
    refused(finished, "stage1: step 2 saw 3 samples, 4 expected")


def test_a_training_that_changed_a_frozen_tensor_is_not_exported(finished: Finished) -> None:
    finished.weights[FROZEN] = [1.0, 2.5]
    refused(finished, f"stage1: 1 tensor .{FROZEN}. changed though frozen")


def test_a_training_that_changed_nothing_is_not_exported(finished: Finished) -> None:
    finished.weights[TRAINED] = [3.0, 4.0]
    refused(finished, "none of the 1 trained tensors of the aligner changed")


def test_a_training_without_a_record_of_some_step_is_not_exported(finished: Finished) -> None:
    finished.steps[1].pop(0)
    refused(finished, r"steps-rank1\.jsonl: no record of step 1")


def test_a_training_with_another_last_step_than_it_began_with_is_not_exported(finished: Finished) -> None:
    finished.begin = replace(finished.begin, max_steps=3)
    refused(finished, "max_steps 2 found, 3 expected")


def test_a_training_whose_losses_do_not_go_on_after_a_resume_is_not_exported(finished: Finished) -> None:
    finished.resume_steps, finished.losses = [0, 1], (2.0, 9.0)
    refused(finished, r"the loss after the resume at step 1 is 9\.0000")


@pytest.mark.parametrize(
    "name", ["trainer/checkpoint-2/trainer_state.json", "watch/begin.json", "watch/steps-rank1.jsonl"]
)
def test_what_was_changed_since_it_was_saved_is_not_published(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = finished.run.run_dir / name
    monkeypatch.setattr(finished, "spoil", lambda: path.write_text(path.read_text().replace("2", "3")))
    refused(finished, rf"{name.rpartition('/')[2]}: sha256 .* changed after it was saved")
