"""What Snakemake's Slurm plugin (2.8.0) does that would leave an unattended run waiting, and how it is mended.

- It waits for ever for a job in a state that it does not know. sacct says `CANCELLED by 1000` where it knows CANCELLED, and
  says it of every job that somebody cancels.
- It leaves a preempted job to Slurm, which puts it back in the queue or, with PreemptMode=CANCEL, does not.
- It waits for a job that Slurm accepts and will never start, as one whose walltime is over the partition's.
- It asks sacct wherever there is such a command, also where it never answers because the cluster has no accounting.
- It looks at the jobs 10 s later each time, up to 180 s, unless one has finished: a job that was cut by its walltime would wait
  for the next one that much longer than the polling interval that was asked for.
"""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import snakemake_executor_plugin_slurm as plugin

from common.errors import UserError
from common.process_group import say

# Why a job waits, in Slurm's words (slurm.schedmd.com/job_reason_codes.html): those that no waiting changes.
HOPELESS_REASONS = frozenset({
    "AccountNotAllowed", "AssocMaxCpuPerJobLimit", "AssocMaxGRESPerJob", "AssocMaxMemPerJob", "AssocMaxNodePerJobLimit",
    "AssocMaxWallDurationPerJobLimit", "BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionNodeLimit",
    "PartitionTimeLimit", "QOSMaxCpuPerJobLimit", "QOSMaxGRESPerJob", "QOSMaxMemoryPerJob", "QOSMaxNodePerJobLimit",
    "QOSMaxWallDurationPerJobLimit", "QOSNotAllowed",
})  # fmt: skip
# As the plugin does (its dynamic_check_threshold).
NUM_INTERVALS_KEPT = 3

States = dict[str, str]  # of a job's number
Query = Callable[[str, Any], Awaitable[tuple[States | None, float | None]]]
Check = Callable[[Any, Any], AsyncIterator[Any]]


def understood(states: States, preempted_before: set[str]) -> States:
    """The states as the plugin knows them. A job that was PREEMPTED at the look before, too, is not coming back."""
    states = {job_id: state.split()[0] for job_id, state in states.items() if state}
    preempted = {job_id for job_id, state in states.items() if state == "PREEMPTED"}
    gone = preempted & preempted_before
    preempted_before.clear()
    preempted_before |= preempted
    return states | dict.fromkeys(gone, "CANCELLED")


def with_known_states(query: Query) -> Query:
    """The plugin's question for the states of its jobs, with answers that it understands."""
    preempted_before: set[str] = set()

    async def query_job_status(command: str, logger: Any) -> tuple[States | None, float | None]:
        states, duration_s = await query(command, logger)
        return (None if states is None else understood(states, preempted_before)), duration_s

    return query_job_status


def hopeless_jobs(run_uuid: str) -> States:
    """Why, of each waiting job of this run that will never start. Empty where squeue does not answer; it is asked again."""
    command = ["squeue", "--noheader", f"--name={run_uuid}", "--states=PENDING", "--format=%i|%r"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    reasons = dict(line.split("|", 1) for line in lines)
    return {job_id: reason for job_id, reason in reasons.items() if reason in HOPELESS_REASONS}


def give_up(executor: Any, job: Any, reason: str) -> None:
    """Cancels a job that will never start, and reports it as failed with Slurm's reason, for good."""
    subprocess.run(["scancel", job.external_jobid], capture_output=True)
    job.job.attempt = job.job.restart_times + 1  # the same request again would wait as long
    message = (
        f"Slurm accepted job '{job.external_jobid}' but will never start it: {reason}. It was cancelled. Ask for less or for "
        "something else (partition, account, walltime, nodes: slurm/config.yaml), then give the same command again. "
    )
    executor.report_job_error(job, msg=message)


def without_waiting_in_vain(check: Check) -> Check:
    """The plugin's look at its jobs, as often as `slurm-init-seconds-before-status-checks` says, and not at hopeless ones."""

    async def check_active_jobs(self: Any, active_jobs: Any) -> AsyncIterator[Any]:
        hopeless = hopeless_jobs(self.run_uuid)
        for job in active_jobs:
            if job.external_jobid in hopeless:
                give_up(self, job, hopeless[job.external_jobid])
        async for job in check(self, [job for job in active_jobs if job.external_jobid not in hopeless]):
            yield job
        self.next_seconds_between_status_checks = self.workflow.executor_settings.init_seconds_before_status_checks

    return check_active_jobs


def status_command(asked_for: str | None, interval_s: int) -> str:
    """Which of Slurm's commands tells of ended jobs here: sacct where it answers, squeue otherwise.

    Where no cluster answers at all, that is for the first submission to say: `prefetch` submits nothing.

    Raises UserError where squeue forgets jobs so soon that their end could be missed (the plugin would ask sacct then).
    """
    if asked_for != "squeue":
        asked = subprocess.run(["sacct", "--noheader", "--allocations"], capture_output=True, text=True)
        if asked.returncode == 0:
            return "sacct"
        say(f"sacct does not answer ({asked.stderr.strip()}); squeue is asked how jobs ended")
    min_job_age_s = plugin.get_min_job_age()
    if min_job_age_s is not None and min_job_age_s < NUM_INTERVALS_KEPT * interval_s:
        raise UserError(
            f"squeue: Slurm forgets jobs {min_job_age_s} s after their end (MinJobAge), at least {NUM_INTERVALS_KEPT} intervals "
            f"of {interval_s} s expected, or the end of one could be missed; set SLURM_POLL_S lower, or have accounting set up"
        )
    return "squeue"


def mend_the_plugin(settings: Any) -> None:
    """To be called once in the process that submits, with the settings of its executor, whichever that is."""
    if not isinstance(settings, plugin.ExecutorSettings):
        return
    settings.status_command = status_command(settings.status_command, settings.init_seconds_before_status_checks)
    plugin.query_job_status = with_known_states(plugin.query_job_status)
    plugin.Executor.check_active_jobs = without_waiting_in_vain(plugin.Executor.check_active_jobs)
