"""Slurm's states of a job in words that Snakemake's Slurm plugin (2.8.0) understands; it waits for ever for any other.

sacct says `CANCELLED by 1000` where the plugin knows CANCELLED, and says it of every job that somebody cancels. And the plugin
leaves a preempted job to Slurm, which puts it back in the queue or, with PreemptMode=CANCEL, does not.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import snakemake_executor_plugin_slurm as plugin

States = dict[str, str]  # of a job's number
Query = Callable[[str, Any], Awaitable[tuple[States | None, float | None]]]


def understood(states: States, preempted_before: set[str]) -> States:
    """The states as the plugin knows them. A job that was PREEMPTED at the look before, too, is not coming back."""
    states = {job_id: state.split()[0] for job_id, state in states.items() if state}
    preempted = {job_id for job_id, state in states.items() if state == "PREEMPTED"}
    gone = preempted & preempted_before
    preempted_before.clear()
    preempted_before |= preempted
    return states | dict.fromkeys(gone, "CANCELLED")


def mended(query: Query) -> Query:
    """The plugin's question for the states of its jobs, with answers that it understands."""
    preempted_before: set[str] = set()

    async def query_job_status(command: str, logger: Any) -> tuple[States | None, float | None]:
        states, duration_s = await query(command, logger)
        return (None if states is None else understood(states, preempted_before)), duration_s

    return query_job_status


def mend_the_plugin() -> None:
    """To be called once in the process that submits."""
    plugin.query_job_status = mended(plugin.query_job_status)
