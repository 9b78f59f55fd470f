"""What `make status` shows of a training, from its files."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.train.complete_checkpoints import mark_complete
from scripts.train.show_status import described, training_status

NOW_S = 1000.0


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A training of two ranks at step 30 of 40, with a checkpoint of step 20, as its files are after a kill."""
    run_dir = tmp_path / "work/results/demo/stage2/0123456789abcdef"
    watch_dir = run_dir / "watch"
    checkpoint_dir = run_dir / "trainer/checkpoint-20"
    watch_dir.mkdir(parents=True)
    checkpoint_dir.mkdir(parents=True)
    (run_dir / "launcher.lock").touch()
    history = [{"step": 10, "loss": 1.5}, {"step": 20, "loss": 1.0}]
    state = {"global_step": 20, "max_steps": 40, "log_history": history}
    (checkpoint_dir / "trainer_state.json").write_text(json.dumps(state))
    mark_complete(checkpoint_dir)
    progress = {"phase": "training", "step": 30, "max_steps": 40, "loss": 0.75, "num_samples": 960}
    (watch_dir / "progress.json").write_text(json.dumps(progress))
    for rank, host in enumerate(("node1", "node2")):
        (watch_dir / f"rank{rank}.json").write_text(json.dumps({"pid": 1, "host": host, "start_time": "1"}))
        steps = [
            {"step": step, "num_samples": 16, "num_tokens": 80, "step_time_s": 2.0, "end_time_s": 900.0 + 2 * step}
            for step in range(1, 31)
        ]
        write_lines(watch_dir / f"steps-rank{rank}.jsonl", steps)
    starts = [{"start_time_s": 1.0, "resume_step": 0, "host": "node1", "slurm_job_id": "41"}]
    write_lines(run_dir / "attempts.jsonl", [*starts, starts[0] | {"resume_step": 20, "slurm_job_id": "42"}])
    return run_dir


def test_a_running_training_tells_place_step_loss_speed_time_left_and_checkpoint(run_dir: Path) -> None:
    with open(run_dir / "launcher.lock", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = described(training_status(run_dir, NOW_S))
    assert line == (
        "running: training, step 30/40, loss 0.7500, 16.0 samples/s, about 20 s left, last checkpoint 20, 2 starts, "
        "on node1, node2 (Slurm job 42), last step 40 s ago"
    )


def test_a_training_that_nobody_holds_is_not_running(run_dir: Path) -> None:
    line = described(training_status(run_dir, NOW_S))
    assert line.startswith("not running, step 30/40, loss 0.7500, last checkpoint 20, 2 starts")
    assert "samples/s" not in line


def test_a_training_that_was_started_again_and_is_loading_tells_nothing_of_the_start_before(run_dir: Path) -> None:
    starts = [json.loads(line) for line in (run_dir / "attempts.jsonl").read_text().splitlines()]
    starts[-1]["start_time_s"] = NOW_S - 5
    write_lines(run_dir / "attempts.jsonl", starts)
    with open(run_dir / "launcher.lock", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = described(training_status(run_dir, NOW_S))
    assert line == (
        "running: starting, step 20/40, loss 1.0000, last checkpoint 20, 2 starts, on node1, node2 (Slurm job 42)"
    )


def test_a_finished_training_says_so(run_dir: Path) -> None:
    state_path = run_dir / "trainer/checkpoint-20/trainer_state.json"
    state_path.write_text(state_path.read_text().replace('"max_steps": 40', '"max_steps": 20'))
    (run_dir / "watch/progress.json").unlink()
    assert described(training_status(run_dir, NOW_S)).startswith(
        "finished, step 20/20, loss 1.0000, last checkpoint 20"
    )


def test_a_training_that_has_just_begun_has_little_to_tell(tmp_path: Path) -> None:
    (tmp_path / "launcher.lock").touch()
    line = described(training_status(tmp_path, NOW_S))
    assert line == "not running, step 0/?, no checkpoint yet, 0 starts"


def test_the_program_lists_every_training_and_names_a_directory_without_one(root: Path, run_dir: Path) -> None:
    def status(work_dir: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts", "train.show_status", "--work-dir", str(work_dir)]
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    work_dir = run_dir.parents[3]
    assert status(work_dir).stdout.splitlines()[0] == "results/demo/stage2 [0123456789abcdef]"
    empty = status(run_dir / "trainer")
    assert empty.returncode == 1
    assert "no training found there" in empty.stderr
