"""Which training goes on, and what is left of one that never saved anything."""

import json
from pathlib import Path

import pytest

from helpers.trained_checkpoint import WEIGHTS, make_trained
from scripts.common.errors import UserError
from scripts.train import train
from scripts.train.complete_checkpoints import mark_complete
from scripts.train.run import Run
from scripts.train.starts import read_attempts, read_failed_starts
from scripts.train.trainer_process import StopRequests


def add_checkpoint(run: Run, step: int, max_steps: int) -> Path:
    checkpoint = make_trained(run.trainer_dir / f"checkpoint-{step}", WEIGHTS)
    state = {"global_step": step, "max_steps": max_steps, "log_history": []}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    mark_complete(checkpoint)
    return checkpoint


def test_a_finished_training_is_not_started_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "run_trainer_at_free_port", lambda *_: pytest.fail("the trainer was started"))
    checkpoint = add_checkpoint(run, 4, max_steps=4)
    run.command_path.write_text('["swift", "sft"]')
    assert train.train(run, StopRequests(), attempt=1) == (checkpoint, ["swift", "sft"])
    assert read_attempts(run.run_dir) == []


def test_a_training_goes_on_from_its_last_whole_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = add_checkpoint(run, 2, max_steps=4)
    make_trained(run.trainer_dir / "checkpoint-3", WEIGHTS)  # cut off: it is not marked complete
    started_from = []

    def run_trainer(run: Run, resume_from: Path | None, stop: StopRequests) -> list[str]:
        started_from.append(resume_from)
        add_checkpoint(run, 4, max_steps=4)
        return ["the command"]

    monkeypatch.setattr(train, "run_trainer_at_free_port", run_trainer)
    assert train.train(run, StopRequests(), attempt=1) == (run.trainer_dir / "checkpoint-4", ["the command"])
    assert started_from == [checkpoint]
    assert [attempt.resume_step for attempt in read_attempts(run.run_dir)] == [2]
    logged = capsys.readouterr().err
    assert "checkpoint-3, which was cut off while it was written" in logged
    assert "going on from step 2" in logged


def test_a_trainer_that_ends_early_is_an_error_that_is_recorded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.watch.steps(0).write_text("a step of a start that saved nothing\n")
    monkeypatch.setattr(train, "run_trainer_at_free_port", lambda *_: ["the command"])
    with pytest.raises(UserError, match=r"ended without an error, but not at the last step \(no checkpoint\)"):
        train.train(run, StopRequests(), attempt=1)
    assert [failed.message[:7] for failed in read_failed_starts(run.run_dir)] == ["stage1:"]
    assert not run.watch.steps(0).exists()


def test_a_trainer_that_ended_without_an_error_before_its_last_step_has_not_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_way(*_: object) -> list[str]:
        add_checkpoint(run, 2, max_steps=5)
        return ["the command"]

    monkeypatch.setattr(train, "run_trainer_at_free_port", half_way)
    with pytest.raises(UserError, match=r"not at the last step \(saved at step 2 of 5\)"):
        train.train_to_the_end(run, None, StopRequests())


def test_a_changed_checkpoint_is_not_gone_on_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "run_trainer_at_free_port", lambda *_: pytest.fail("the trainer was started"))
    checkpoint = add_checkpoint(run, 2, max_steps=4)
    (checkpoint / "optimizer.pt").write_bytes(b"stbte")
    with pytest.raises(UserError, match=r"optimizer\.pt: sha256 .* it was changed after it was saved"):
        train.train(run, StopRequests(), attempt=1)
    assert checkpoint.is_dir()


def test_a_checkpoint_under_the_name_of_another_step_is_not_gone_on_from(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "run_trainer_at_free_port", lambda *_: pytest.fail("the trainer was started"))
    checkpoint = add_checkpoint(run, 2, max_steps=9)
    checkpoint.rename(checkpoint.with_name("checkpoint-3"))
    with pytest.raises(UserError, match=r"checkpoint-3: of step 2; expected 3, as its name says; remove it"):
        train.train(run, StopRequests(), attempt=1)
    assert read_attempts(run.run_dir) == []
