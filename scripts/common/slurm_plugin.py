"""What Snakemake's Slurm plugin (2.8.0) does that would leave an unattended run waiting, and how it is mended.

- It waits for ever for a job in a state that it does not know. sacct says `CANCELLED by 1000` where it knows CANCELLED, and
  says it of every job that somebody cancels.
- It leaves a preempted job to Slurm, which puts it back in the queue or, with PreemptMode=CANCEL, does not.
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


def at_the_interval_asked_for(check: Check) -> Check:
    """The plugin's look at its jobs, always as long after the last one as `slurm-init-seconds-before-status-checks` says."""

    async def check_active_jobs(self: Any, active_jobs: Any) -> AsyncIterator[Any]:
        async for job in check(self, active_jobs):
            yield job
        self.next_seconds_between_status_checks = self.workflow.executor_settings.init_seconds_before_status_checks

    return check_active_jobs


def status_command(asked_for: str | None, interval_s: int) -> str:
    """Which of Slurm's commands tells of ended jobs here: sacct where it answers, squeue otherwise.

    Raises UserError where squeue forgets jobs so soon that their end could be missed (the plugin would ask sacct then).
    """
    if asked_for != "squeue":
        asked = subprocess.run(["sacct", "--noheader", "--allocations"], capture_output=True, text=True)
        if asked.returncode == 0:
            return "sacct"
        say(f"sacct does not answer ({asked.stderr.strip()}); squeue is asked how jobs ended")
    min_job_age_s = plugin.get_min_job_age()
    if min_job_age_s is None or min_job_age_s < NUM_INTERVALS_KEPT * interval_s:
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
    plugin.Executor.check_active_jobs = at_the_interval_asked_for(plugin.Executor.check_active_jobs)
