#!/usr/bin/env python3
"""Says how far each training is: where it runs, step, loss, samples/s, time left, last checkpoint. From files only.

For somebody who comes back in the morning: it asks neither Slurm nor the trainer, so it also works when they are gone.
Whether a trainer is at work is told by the lock that it holds (common/process_group.py), not by what it wrote.

By hand: .venv/bin/python scripts train.show_status            # or `make status`; --work-dir work/results/demo for one run
"""

import argparse
import fcntl
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import read_if_whole
from scripts.common.processes import try_lock
from scripts.common.units import duration
from scripts.train.checkpoints import last_complete, step_of
from scripts.train.step_records import losses_of, read_lines, steps_path
from scripts.train.trainer_process import LAUNCHER_LOCK_NAME, RANKS_LOCK_NAME

# Over so many of the last steps samples/s and the time left are reckoned.
NUM_RECENT_STEPS = 50


@dataclass(frozen=True)
class TrainingStatus:
    """One training, as its files tell it; None where they do not."""

    run_dir: Path
    is_running: bool
    phase: str
    step: int
    max_steps: int | None
    loss: float | None
    num_samples_per_s: float | None
    left_s: float | None
    checkpoint_step: int | None
    num_starts: int
    where: str  # hosts and Slurm job of the last start
    last_sign_s: float | None  # seconds since the last step


def is_held(path: Path) -> bool:
    """Whether some process holds the lock, here or on another node."""
    try:
        with open(path, encoding="utf-8") as lock:
            return not try_lock(lock, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def where_it_ran(run_dir: Path) -> str:
    """The hosts of the last start, and its Slurm job if it had one."""
    ranks = [read_if_whole(path) for path in sorted((run_dir / "watch").glob("rank*.json"))]
    starts = list(read_lines(run_dir / "attempts.jsonl"))
    hosts = sorted({rank["host"] for rank in ranks if "host" in rank})
    text = ", ".join(hosts) or (starts[-1].get("host", "") if starts else "")
    job_id = starts[-1].get("slurm_job_id") if starts else None
    return f"{text} (Slurm job {job_id})" if job_id else text


def training_status(run_dir: Path, now_s: float) -> TrainingStatus:
    """Reads one training's directory, WORK_DIR/STAGE/SIGNATURE. `now_s` is seconds since the epoch."""
    watch_dir = run_dir / "watch"
    progress = read_if_whole(watch_dir / "progress.json")
    checkpoint = last_complete(run_dir / "trainer")
    # Read leniently: the trainer removes its older checkpoints while we look.
    state = read_if_whole(checkpoint / "trainer_state.json") if checkpoint else {}
    starts = list(read_lines(run_dir / "attempts.jsonl"))
    records = list(read_lines(steps_path(watch_dir, 0)))
    if starts and records and records[-1]["end_time_s"] < starts[-1]["start_time_s"]:
        progress, records = {}, []  # what an earlier start wrote says nothing of one that is still loading
    is_running = is_held(run_dir / LAUNCHER_LOCK_NAME) or is_held(run_dir / RANKS_LOCK_NAME)
    losses = losses_of(state.get("log_history", []))
    recent = records[-NUM_RECENT_STEPS:]
    step = max(progress.get("step", 0), step_of(checkpoint) if checkpoint else 0)
    max_steps = progress.get("max_steps") or state.get("max_steps")
    step_time_s = statistics.median(record["step_time_s"] for record in recent) if recent else None
    num_ranks = len(list(watch_dir.glob("steps-rank*.jsonl")))
    return TrainingStatus(
        run_dir=run_dir,
        is_running=is_running,
        phase=progress.get("phase", "starting"),
        step=step,
        max_steps=max_steps,
        loss=progress.get("loss", losses[-1]["loss"] if losses else None),
        num_samples_per_s=(
            num_ranks
            * sum(record["num_samples"] for record in recent)
            / sum(record["step_time_s"] for record in recent)
            if recent
            else None
        ),
        left_s=(max_steps - step) * step_time_s if max_steps and step_time_s else None,
        checkpoint_step=step_of(checkpoint) if checkpoint else None,
        num_starts=len(starts),
        where=where_it_ran(run_dir),
        last_sign_s=now_s - records[-1]["end_time_s"] if records else None,
    )


def described(status: TrainingStatus) -> str:
    """One training in one line."""
    is_finished = status.checkpoint_step is not None and status.checkpoint_step == status.max_steps
    running = f"running: {status.phase}"
    state = running if status.is_running else "finished" if is_finished else "not running"
    parts = [state, f"step {status.step}/{status.max_steps or '?'}"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    if status.is_running and status.num_samples_per_s is not None:
        parts.append(f"{status.num_samples_per_s:.1f} samples/s")
    if status.is_running and status.left_s:
        parts.append(f"about {duration(status.left_s)} left")
    kept = "no checkpoint yet" if status.checkpoint_step is None else f"last checkpoint {status.checkpoint_step}"
    parts += [kept, f"{status.num_starts} start{'s' if status.num_starts != 1 else ''}"]
    if status.where:
        parts.append(f"on {status.where}")
    if not is_finished and status.last_sign_s is not None:
        parts.append(f"last step {duration(status.last_sign_s)} ago")
    return ", ".join(parts)


def trainings(work_dir: Path) -> Sequence[Path]:
    """Every training below a work directory, in the order of stages, the one that was begun last coming last."""
    found = {path.parent for path in work_dir.glob("**/stage[12]/*/launcher.lock")}
    return sorted(found, key=lambda path: (path.parent, path.stat().st_ctime))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work"))
    arguments = parser.parse_args()
    found = trainings(arguments.work_dir)
    if not found:
        raise UserError(f"{arguments.work_dir}: no training found there; expected one that was begun; start one first")
    for run_dir in found:
        print(f"{run_dir.parent.relative_to(arguments.work_dir)} [{run_dir.name}]")
        print(f"  {described(training_status(run_dir, time.time()))}")
        if (rank_logs_dir := run_dir / "rank_logs").exists():
            print(f"  output of each rank: {rank_logs_dir}")


if __name__ == "__main__":
    run_program(main)
