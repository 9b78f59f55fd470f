"""The record of a training's starts, and when it is not started once more.

attempts.jsonl has a line for each start of the trainer, failures.jsonl one for each that ended with an error.
"""

import contextlib
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.train.json_lines import append_line, read_objects
from scripts.train.run import Run

# A first failure may be a node's; a second one at the same step is the training's own.
MAX_STARTS_WITHOUT_PROGRESS = 2

# In the message of one that is not made any more; scripts/workflow/slurm_plugin.py looks for it.
NO_MORE_STARTS = "not starting again"


@dataclass(frozen=True)
class Attempt:
    """A start of the trainer. `start_time_s` is seconds since the epoch."""

    start_time_s: float
    resume_step: int
    host: str = ""
    slurm_job_id: str | None = None


@dataclass(frozen=True)
class FailedStart:
    """Why a start ended before the last step."""

    time_s: float
    message: str


def attempts_path(run_dir: Path) -> Path:
    return run_dir / "attempts.jsonl"


def failures_path(run_dir: Path) -> Path:
    return run_dir / "failures.jsonl"


def read_attempts(run_dir: Path) -> list[Attempt]:
    return read_objects(Attempt, attempts_path(run_dir))


def read_failed_starts(run_dir: Path) -> list[FailedStart]:
    return read_objects(FailedStart, failures_path(run_dir))


def record_attempt(run_dir: Path, resume_step: int) -> None:
    attempt = Attempt(time.time(), resume_step, socket.gethostname(), os.environ.get("SLURM_JOB_ID"))
    append_line(attempts_path(run_dir), asdict(attempt))


def record_failed_start(run_dir: Path, message: str) -> None:
    """On a full disk nothing is recorded: the error that is being raised says so."""
    with contextlib.suppress(OSError):
        append_line(failures_path(run_dir), asdict(FailedStart(time.time(), message)))


def check_progress(run: Run, attempt: int, step: int) -> None:
    """Raises UserError when the last starts of this command saved no checkpoint beyond `step`, the last one there is.

    `attempt` counts from 1 each time that a person gives the command; the scheduler's resubmissions raise it.
    """
    # Starts by the job that they belong to: Slurm may requeue a job, and this one may be such. Without Slurm each start is
    # a job of its own.
    last_of_job: dict[str | int, Attempt] = {
        start.slurm_job_id or number: start for number, start in enumerate(read_attempts(run.run_dir))
    }
    last_of_job.pop(os.environ.get("SLURM_JOB_ID", ""), None)
    num_of_this_command = attempt - 1
    starts = list(last_of_job.values())[-num_of_this_command:] if num_of_this_command else []
    num_without_progress = sum(start.resume_step == step for start in starts)
    if num_without_progress < MAX_STARTS_WITHOUT_PROGRESS:
        return
    failures = read_failed_starts(run.run_dir)
    if failures and failures[-1].time_s >= starts[-1].start_time_s:
        reason = failures[-1].message
    else:
        reason = "none recorded, as when a process is killed because memory ran out, or its node failed"
    raise UserError(
        f"{run.stage}: the last {num_without_progress} starts saved no checkpoint beyond step {step}; {NO_MORE_STARTS}; "
        "expected a new checkpoint in each job; save more often (save_steps), ask for more time or memory, or correct the "
        f"cause of the last failure, then give the same command again. Last failure: {reason}"
    )
