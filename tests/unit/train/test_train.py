"""What identifies a training, what proves that it saw every sample, and what is told when it fails."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.common import gpus
from scripts.common.errors import UserError
from scripts.train import start, train
from scripts.train.proof import check_resumes, check_samples, wall_time_s
from scripts.train.run import Run, check_progress, signature_of
from scripts.train.start import ProgressLine, failure_message, node_launcher
from scripts.train.step_records import StepRecord

SETTINGS: dict[str, Any] = {
    "datasets": ["x"],
    "num_nodes": 1,
    "num_processes_per_node": 1,
    "deepspeed": None,
    "environment": {"MAX_PIXELS": 1},
    "flags": {"learning_rate": 0.1, "save_steps": 5, "logging_steps": 1},
}


def signature(changes: dict[str, Any] | None = None, flags: dict[str, Any] | None = None, **inputs: Any) -> str:
    settings = SETTINGS | (changes or {})
    settings = settings | {"flags": settings["flags"] | (flags or {})}
    given = {"seed": 0, "model": "m", "dataset": "d", "versions": {"torch": "2"}} | inputs
    return signature_of(settings, **given)


@pytest.mark.parametrize(
    "other",
    [
        {"changes": {"num_processes_per_node": 2}},
        {"changes": {"deepspeed": "zero2"}},
        {"changes": {"environment": {"MAX_PIXELS": 2}}},
        {"flags": {"learning_rate": 0.2}},
        {"flags": {"max_steps": 3}},
        {"seed": 1},
        {"model": "n"},
        {"dataset": "e"},
        {"versions": {"torch": "3"}},
    ],
)
def test_what_changes_the_result_is_another_training(other: dict[str, Any]) -> None:
    assert signature(**other) != signature()


def test_how_often_it_saves_and_logs_is_the_same_training() -> None:
    assert signature(flags={"save_steps": 9, "logging_steps": 7, "save_total_limit": 3}) == signature()
    assert signature(changes={"datasets": ["another name for the same rows"]}) == signature()


def records(num_samples: list[int]) -> dict[int, StepRecord]:
    return {step: StepRecord(step, count, 1, 1.0, 0.0) for step, count in enumerate(num_samples, start=1)}


def test_samples_are_added_over_ranks() -> None:
    assert check_samples("stage1", [records([2, 1]), records([2, 1])], [4, 2]) == 6


def test_a_step_that_saw_fewer_samples_than_dealt_is_named() -> None:
    with pytest.raises(UserError, match="stage1: step 2 saw 1 samples, 2 expected"):
        check_samples("stage1", [records([2, 1]), records([2, 0])], [4, 2])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "watch").mkdir()
    return Run(
        "stage1",
        SETTINGS,
        0,
        tmp_path,
        {},
        tmp_path / "data.jsonl",
        3,
        tmp_path,
        tmp_path / "train.log",
        Path("python"),
    )


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def losses(*values: float) -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss} for step, loss in enumerate(values, start=1)]


def test_each_resume_is_told_with_the_losses_around_it(run: Run) -> None:
    write_lines(run.attempts_path, [{"start_time_s": 0, "resume_step": step} for step in (0, 2, 3)])
    assert check_resumes(run, losses(2.0, 1.5, 1.4, 1.2)) == [
        {"step": 2, "loss_before": 1.5, "loss_after": 1.4},
        {"step": 3, "loss_before": 1.4, "loss_after": 1.2},
    ]


def test_two_starts_at_the_same_step_are_one_resume(run: Run) -> None:
    write_lines(run.attempts_path, [{"start_time_s": 0, "resume_step": step} for step in (0, 2, 2)])
    assert [resume["step"] for resume in check_resumes(run, losses(2.0, 1.5, 1.4))] == [2]


def starts(*resume_steps: int) -> list[dict[str, Any]]:
    return [
        {"start_time_s": float(number), "resume_step": step, "slurm_job_id": None}
        for number, step in enumerate(resume_steps)
    ]


def test_a_training_that_comes_to_a_checkpoint_in_each_job_may_take_any_number_of_them(run: Run) -> None:
    write_lines(run.attempts_path, starts(0, 5, 10, 15, 20))
    check_progress(run, attempt=6, step=25)


def test_a_second_failure_in_a_row_is_tried_again_and_a_third_is_not(run: Run) -> None:
    write_lines(run.attempts_path, starts(0, 5))
    check_progress(run, attempt=3, step=5)
    write_lines(run.attempts_path, starts(0, 5, 5))
    write_lines(run.failures_path, [{"time_s": 0.5, "message": "old"}, {"time_s": 2.5, "message": "out of space"}])
    with pytest.raises(UserError, match=r"stage1: 2 starts in a row came to no checkpoint beyond step 5.*out of space"):
        check_progress(run, attempt=4, step=5)


def test_the_reason_of_an_earlier_start_is_not_taken_for_that_of_a_killed_one(run: Run) -> None:
    write_lines(run.attempts_path, starts(0, 0))
    write_lines(run.failures_path, [{"time_s": 0.5, "message": "old"}])
    with pytest.raises(UserError, match="ended without a word"):
        check_progress(run, attempt=3, step=0)


def test_the_starts_of_a_job_that_slurm_put_back_are_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = [
        {"start_time_s": 1.0, "resume_step": step, "slurm_job_id": job}
        for step, job in ((0, "7"), (20, "8"), (20, "8"))
    ]
    write_lines(run.attempts_path, [*starts, starts[-1] | {"slurm_job_id": "9"}])
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    check_progress(run, 3, 20)
    monkeypatch.setenv("SLURM_JOB_ID", "10")
    with pytest.raises(UserError, match="2 starts in a row"):
        check_progress(run, 4, 20)


def test_a_command_given_anew_tries_again(run: Run) -> None:
    write_lines(run.attempts_path, starts(0, 0, 0))
    check_progress(run, attempt=1, step=0)
    check_progress(run, attempt=2, step=0)


def test_a_resume_that_began_anew_is_an_error(run: Run) -> None:
    write_lines(run.attempts_path, [{"start_time_s": 0, "resume_step": 2}])
    with pytest.raises(UserError, match=r"the loss after the resume at step 2 is 9\.0000, at most 2\.5000 expected"):
        check_resumes(run, losses(1.0, 0.9, 9.0))


def test_the_time_of_a_killed_start_counts_to_its_last_step_and_the_pause_does_not(run: Run) -> None:
    write_lines(
        run.attempts_path, [{"start_time_s": 100.0, "resume_step": 0}, {"start_time_s": 500.0, "resume_step": 1}]
    )
    steps = [StepRecord(1, 1, 1, 1.0, 110.0), StepRecord(2, 1, 1, 1.0, 120.0), StepRecord(2, 1, 1, 1.0, 530.0)]
    write_lines(run.watch_dir / "steps-rank0.jsonl", [vars(step) for step in steps])
    assert wall_time_s(run) == 20.0 + 30.0


def test_a_ranks_own_error_is_the_message(run: Run) -> None:
    for rank, time_s in ((1, 5.0), (0, 6.0)):
        failure = {"rank": rank, "message": f"what rank {rank} found", "is_user_error": True, "time_s": time_s}
        (run.watch_dir / f"failure-rank{rank}.json").write_text(json.dumps(failure))
    assert failure_message(run, 1, 0) == f"stage1: what rank 1 found (all output: {run.log})"


def test_without_one_the_first_exception_of_this_start_and_the_last_lines_are_shown(run: Run) -> None:
    old = "ValueError: of an earlier start\n"
    lines = [
        "Traceback (most recent call last):",
        "[rank1]: torch.OutOfMemoryError: CUDA out of memory",
        "RuntimeError: later",
    ]
    run.log.write_text(old + "\n".join(lines) + "\n")
    message = failure_message(run, -9, len(old))
    assert message.startswith(
        "stage1: ms-swift ended with signal 9: [rank1]: torch.OutOfMemoryError: CUDA out of memory\n"
    )
    assert "earlier start" not in message
    assert message.endswith(f"all output: {run.log}")


def test_of_a_rank_that_failed_first_the_last_lines_are_shown_and_not_those_of_the_others(run: Run) -> None:
    failure = {"rank": 2, "message": "OSError: no space", "is_user_error": False, "time_s": 1.0}
    (run.watch_dir / "failure-rank2.json").write_text(json.dumps(failure))
    run.rank_logs_dir.mkdir()
    run.log.write_text("[rank2]: its own line\n" + "[rank1]: an echo\n" * 20)
    assert failure_message(run, 1, 0) == (
        "stage1: ms-swift ended with exit status 1: OSError: no space\n  [rank2]: its own line\n"
        f"  all output: {run.log}; of each rank: {run.rank_logs_dir}"
    )


def test_where_the_nodes_could_not_meet_another_port_is_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ports_left: list[Any] = [start.MeetingFailed("taken"), start.MeetingFailed("taken"), ["the command"]]

    def run_trainer(*_: object) -> list[str]:
        result = ports_left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(start, "run_trainer", run_trainer)
    assert start.run_trainer_at_some_port(run, None, train.StopRequests()) == ["the command"]
    ports_left[:] = [start.MeetingFailed("taken")] * 4
    with pytest.raises(start.MeetingFailed):
        start.run_trainer_at_some_port(run, None, train.StopRequests())
    assert len(ports_left) == 1


def test_only_agents_that_never_had_a_rank_could_not_meet(run: Run) -> None:
    warning = (
        "[W1125] The node has failed to shutdown the rendezvous due to an error of type RendezvousConnectionError.\n"
    )
    run.log.write_text(warning)
    assert not start.could_not_meet(run, 0)
    error = (
        "torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to the store has failed.\n"
    )
    run.log.write_text(warning + error)
    assert start.could_not_meet(run, 0)
    assert not start.could_not_meet(run, run.log.stat().st_size)
    (run.watch_dir / "rank0.json").touch()
    assert not start.could_not_meet(run, 0)


@pytest.mark.parametrize(("node", "is_host"), [("0", "1"), ("1", "0"), ("10", "0")])
def test_the_first_nodes_agent_is_the_host(node: str, is_host: str) -> None:
    command = ["sh", "-c", start.NODE_SHELL, "sh", "printenv", "PET_RDZV_CONF"]
    shown = subprocess.run(command, env=os.environ | {"SLURM_NODEID": node}, check=True, capture_output=True, text=True)
    assert shown.stdout == f"is_host={is_host}\n"


def test_one_node_needs_no_launcher_and_several_need_a_slurm_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert node_launcher("stage1", 1) == ([], "127.0.0.1:0")
    with pytest.raises(UserError, match=r"stage1\.num_nodes: 2 found, but this is no Slurm job"):
        node_launcher("stage1", 2)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    scontrol = tmp_path / "scontrol"  # stands in for Slurm's
    scontrol.write_text("#!/bin/sh\necho JobId=7 NumCPUs=48 NumTasks=2 CPUs/Task=24 ReqB:S:C:T=0:0:*:*\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    launcher, rendezvous = node_launcher("stage1", 2)
    assert launcher[:3] == ["srun", "--overlap", "--nodes=2"]
    assert "--cpus-per-task=24" in launcher
    assert not rendezvous.endswith(":0")
    scontrol.write_text("#!/bin/sh\necho Unable to contact >&2; exit 1\n")
    with pytest.raises(UserError, match=r"scontrol .* 7: failed \(Unable to contact\)"):
        node_launcher("stage1", 2)


def test_a_machine_without_a_gpus_device_file_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "GPU_DEVICE_NODES", ("/dev/there-is-no-such-device",))
    assert start.num_gpus(Path("python"), {}) == 0


def test_the_progress_says_step_loss_speed_and_time_left_of_this_start_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(train.time, "monotonic", lambda: now_s)
    progress = ProgressLine("stage1", tmp_path)
    now_s += 6.0
    progress.look()
    assert capsys.readouterr().err == "stage1: ms-swift is starting (6 s)\n"

    groups = ("vision_tower", "aligner", "language_model")
    begin = {
        "first_step": 100,
        "num_parameters": dict.fromkeys(groups, 1000),
        "num_trainable_parameters": {"vision_tower": 0, "aligner": 1000, "language_model": 0},
        "checkpoint_bytes": 36_050_000_000,
    }
    (tmp_path / "begin.json").write_text(json.dumps(begin), encoding="utf-8")
    progress.look()
    said = capsys.readouterr().err
    assert "each checkpoint takes at least 36.05 GB on the disk" in said
    assert "[TRAINABLE] aligner: 1,000 of 1,000 parameters train" in said
    assert "[FROZEN]    language_model: 0 of 1,000 parameters train" in said

    state = {"phase": "training", "step": 120, "max_steps": 200, "loss": 0.5, "num_samples": 640}
    (tmp_path / "progress.json").write_text(json.dumps(state), encoding="utf-8")
    now_s += 10.0
    progress.look()
    assert capsys.readouterr().err == ("stage1: training, step 120/200, loss 0.5000, 64.0 samples/s, about 40 s left\n")
