"""Prints how far each training is: where it runs, step, loss, samples/s, time left, last checkpoint.

It reads files only and asks neither Slurm nor the trainer, so it also works when they are gone. Whether a trainer is running
is seen from the lock that it holds (scripts/train/trainer_process.py), not from what it wrote.

By hand:
  .venv/bin/python scripts train.show_status                     # all below work/, or `make status`
  .venv/bin/python scripts train.show_status --config config/demo.yaml
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.units import duration
from scripts.train.checkpoints import TrainerState, read_trainer_state
from scripts.train.complete_checkpoints import last_complete, step_of
from scripts.train.starts import Attempt, read_attempts
from scripts.train.step_records import StepRecord, read_all_steps
from scripts.train.trainer_process import LAUNCHER_LOCK_NAME, RANKS_LOCK_NAME, is_locked
from scripts.train.watch_files import WatchDir, read_progress

# Samples/s and the time left are averaged over the last steps.
NUM_RECENT_STEPS = 50


@dataclass(frozen=True)
class TrainingStatus:
    """One training as its files show it; None where they do not show something."""

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
    since_last_step_s: float | None

    @property
    def is_finished(self) -> bool:
        return self.checkpoint_step is not None and self.checkpoint_step == self.max_steps


def where_it_ran(watch: WatchDir, starts: Sequence[Attempt]) -> str:
    """The hosts of the last start, and its Slurm job if it had one."""
    hosts = sorted({process["host"] for process in watch.processes() if "host" in process})
    if not starts:
        return ", ".join(hosts)
    text, job_id = ", ".join(hosts) or starts[-1].host, starts[-1].slurm_job_id
    return f"{text} (Slurm job {job_id})" if job_id else text


def state_if_there(checkpoint: Path | None) -> TrainerState | None:
    """None also where the trainer removes this older checkpoint at this moment."""
    try:
        return read_trainer_state(checkpoint) if checkpoint else None
    except UserError:
        return None


def samples_per_s(recent: Sequence[StepRecord], num_ranks: int) -> float | None:
    """Of all ranks, from the records of one."""
    if not recent:
        return None
    return num_ranks * sum(record.num_samples for record in recent) / sum(record.step_time_s for record in recent)


def training_status(run_dir: Path, now_s: float) -> TrainingStatus:
    """Reads one training's directory, WORK_DIR/STAGE/SIGNATURE. `now_s` is seconds since the epoch."""
    watch = WatchDir(run_dir / "watch")
    progress, records, starts = read_progress(watch), read_all_steps(watch.steps(0)), read_attempts(run_dir)
    if starts and records and records[-1].end_time_s < starts[-1].start_time_s:
        progress, records = None, []  # of an earlier start; the last one is still loading
    checkpoint = last_complete(run_dir / "trainer")
    state = state_if_there(checkpoint)
    checkpoint_step = step_of(checkpoint) if checkpoint else None
    step = max(progress.step if progress else 0, checkpoint_step or 0)
    max_steps = progress.max_steps if progress else state.max_steps if state else None
    loss = progress.loss if progress else None
    if loss is None and state and state.losses:
        loss = state.losses[-1].loss
    recent = records[-NUM_RECENT_STEPS:]
    left_s = None
    if max_steps and recent:
        left_s = (max_steps - step) * statistics.median(record.step_time_s for record in recent)
    return TrainingStatus(
        run_dir=run_dir,
        is_running=is_locked(run_dir / LAUNCHER_LOCK_NAME) or is_locked(run_dir / RANKS_LOCK_NAME),
        phase=progress.phase if progress else "starting",
        step=step,
        max_steps=max_steps,
        loss=loss,
        num_samples_per_s=samples_per_s(recent, len(watch.all_steps)),
        left_s=left_s,
        checkpoint_step=checkpoint_step,
        num_starts=len(starts),
        where=where_it_ran(watch, starts),
        since_last_step_s=now_s - records[-1].end_time_s if records else None,
    )


def described(status: TrainingStatus) -> str:
    """One training in one line."""
    state = "finished" if status.is_finished else "not running"
    if status.is_running:
        state = f"running: {status.phase}"
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
    if not status.is_finished and status.since_last_step_s is not None:
        parts.append(f"last step {duration(status.since_last_step_s)} ago")
    return ", ".join(parts)


def trainings(work_dir: Path) -> Sequence[Path]:
    """Every training below a work directory, by stage and, within a stage, by its beginning."""
    found = {path.parent for path in work_dir.glob("**/stage[12]/*/launcher.lock")}
    return sorted(found, key=lambda path: (path.parent, path.stat().st_ctime))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work"))
    arguments = parser.parse_args()
    found = trainings(arguments.work_dir)
    if not found:
        raise UserError(
            f"{arguments.work_dir}: no training found there; expected the work directory of one that has begun"
        )
    for run_dir in found:
        print(f"{run_dir.parent.relative_to(arguments.work_dir)} [{run_dir.name}]")
        print(f"  {described(training_status(run_dir, time.time()))}")
        if (rank_logs_dir := run_dir / "rank_logs").exists():
            print(f"  output of each rank: {rank_logs_dir}")


if __name__ == "__main__":
    run_program(main)
