"""One run at a time in a working and in a results directory, and no Slurm job left over from a run that died.

Snakemake's own lock has a gap between looking and writing, and a SIGKILL leaves it behind. Here the kernel holds the lock
as long as the process lives. The results have a lock of their own, because a link can give two checkouts the same.

When Snakemake dies on a login node, its Slurm jobs live on: those that wait are cancelled, those that run are waited for,
because they still write where the new run would. A training goes on from its last checkpoint. Programs on Snakemake's own
machine end by themselves (scripts/common/ownership.py).
"""

import fcntl
import getpass
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.input_files import file_fault
from scripts.common.locks import try_lock
from scripts.common.logger import log
from scripts.common.processes import described, this_process
from scripts.train.slurm_commands import ask

# A line of squeue about a job of Snakemake's Slurm plugin, by how it names them; no other job is touched. Comments are not
# looked at: sites rewrite them, and one of another user may have several lines.
_FORMAT = "--format=%A|%T|%r|%j|%Z"
_JOB = re.compile(r"(\d+)\|([A-Z_]+)\|([^|]*)\|[\w-]*[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\|(/.*)")

# Where the plugin puts the output of jobs: made before the first job is submitted, and kept by the profile's
# `slurm-keep-successful-logs`.
_SLURM_LOGS = Path(".snakemake/slurm_logs")

# States of a job that waits for a person; PENDING ones wait for their turn.
_HELD_STATES = ("REQUEUE_HOLD", "SPECIAL_EXIT")
_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_BETWEEN_LINES = 60.0


@dataclass(frozen=True)
class ClusterJob:
    """A job of this directory that Slurm has waiting or running."""

    job_id: str
    state: str
    rule: str  # with its wildcards, once it has begun
    reason: str = ""  # Slurm's word for why it waits

    @property
    def is_waiting(self) -> bool:
        return self.state in ("PENDING", *_HELD_STATES)


def claim_directory(path: Path) -> None:
    """Takes a directory's lock for the life of this process. Raises UserError naming the run and user that hold it."""
    fault = file_fault(path) or ""
    if fault.startswith("is "):  # one that is absent is made, and one that cannot be reached is named below
        raise UserError(
            f"{path}: {fault.removeprefix('is ')} found; expected the file that says which run works here, or nothing; remove it"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+", encoding="utf-8") as lock:
            if not try_lock(lock, fcntl.LOCK_EX):
                raise UserError(
                    f"{path}: Snakemake runs in this directory already: {holder_of(path)}; expected one run at a time; "
                    "wait for it to end, or end it with Ctrl-C, and give the same command again"
                )
            os.dup(lock.fileno())  # never closed, so the kernel drops the lock with the process and not before
            lock.truncate(0)
            start = {"user": user_name(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            lock.write(json.dumps(this_process() | start))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be opened ({error.strerror}), last used by {holder_of(path)}; expected to be able to write in this "
            "directory; work in a checkout of your own, or let its owner give write permission to your group"
        ) from None


def user_name() -> str:
    """In a container a user id may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def holder_of(path: Path) -> str:
    """Who wrote the lock file."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"{described(holder)}, user {holder['user']}, since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def jobs_of(directory: Path) -> list[ClusterJob]:
    """Snakemake's jobs that Slurm has waiting or running in this directory.

    Slurm is not asked where no job was ever submitted: some machines have its commands and no cluster that answers.
    """
    if not (directory / _SLURM_LOGS).exists():
        return []
    found, reason = ask("squeue", "--noheader", _FORMAT)
    if found is None:
        raise UserError(
            f"squeue: failed ({reason}), so jobs left over from an earlier run could not be looked for, though "
            f"{directory / _SLURM_LOGS} shows that some were submitted from here; expected an answer; give the same command "
            "again where and when Slurm answers, or remove that directory if you know that no job is left"
        )
    jobs = []
    for match in filter(None, map(_JOB.fullmatch, found.splitlines())):
        job_id, state, reason, job_dir = match.groups()
        if Path(job_dir).resolve() == directory.resolve():
            jobs.append(ClusterJob(job_id, state, rule_of(directory, job_id), reason.strip("()")))
    return jobs


def rule_of(directory: Path, job_id: str) -> str:
    """The rule of a job, from where the plugin puts its output: `rule_NAME/WILDCARDS/ID.log`."""
    for path in (directory / _SLURM_LOGS).glob(f"**/{job_id}.log"):
        rule, *wildcards = path.parent.relative_to(directory / _SLURM_LOGS).parts
        return " ".join(dict.fromkeys([rule.removeprefix("rule_"), *wildcards]))
    return "a step"


def cancel_waiting(jobs: list[ClusterJob]) -> None:
    """Cancels jobs that have not begun; one that has begun meanwhile is left alone."""
    for job in jobs:
        log(f"Slurm job {job.job_id} of an earlier run has not begun; cancelling it")
    ids = [job.job_id for job in jobs]
    # A job that is held after a failed start is not PENDING, and does not begin meanwhile.
    only = ["--state=PENDING"] if all(job.state == "PENDING" for job in jobs) else []
    cancelled, reason = ask("scancel", *only, *ids)
    if cancelled is None:
        raise UserError(
            f"scancel: Slurm job {', '.join(ids)} of an earlier run here could not be cancelled "
            f"({reason}), and would write where this run does; ask its owner to cancel it"
        )


def end_leftover_jobs(directory: Path) -> None:
    """Cancels waiting jobs of an earlier run, and returns when its running ones have ended."""
    next_line_s = 0.0
    while jobs := jobs_of(directory):
        if waiting := [job for job in jobs if job.state == "PENDING"]:
            cancel_waiting(waiting)
        elif held := [job for job in jobs if job.state in _HELD_STATES]:
            cancel_waiting(held)
        elif time.monotonic() >= next_line_s:
            next_line_s = time.monotonic() + _SECONDS_BETWEEN_LINES
            for job in jobs:
                log(
                    f"Slurm job {job.job_id} ({job.rule}) of an earlier run is {job.state.lower()} in this directory; "
                    f"waiting for it to end (`scancel {job.job_id}` ends it; a training saves first)"
                )
        time.sleep(_SECONDS_BETWEEN_LOOKS)
