"""Corrects Snakemake's Slurm plugin (2.8.0) where it would leave an unattended run waiting.

- It waits for ever for a job in a state that it does not know. It knows CANCELLED, but sacct reports `CANCELLED by 1000`
  for each job that somebody cancels.
- It leaves a preempted job, and one whose node died, to Slurm, which may or may not queue it again.
- It waits for a job that Slurm accepts and will never start, for example one whose walltime is over the partition's.
- When Slurm does not answer once, it forgets all of its jobs and waits for ever.
- It uses sacct wherever the command exists, also where it never answers because the cluster has no accounting.
- It waits 10 s longer before each check, up to 180 s, unless a job has finished: after a walltime the next job would start
  much later than the polling interval allows.
- It puts paths and values of `--config` into a command that two shells read, where `$(…)` in them would run.
- Ctrl-C while it asks for states cancels nothing: Snakemake keeps its jobs in no list then, and they would run on.
- After a node's death it avoids all nodes of that job for the rest of the run; Slurm knows better which ones are down.
"""

import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import snakemake_executor_plugin_slurm as plugin

from scripts.common.errors import UserError
from scripts.common.logger import log

# Slurm's reasons for a job that waits and will never start (slurm.schedmd.com/job_reason_codes.html).
HOPELESS_REASONS = frozenset({
    "AccountNotAllowed", "AssocMaxCpuPerJobLimit", "AssocMaxGRESPerJob", "AssocMaxMemPerJob", "AssocMaxNodePerJobLimit",
    "AssocMaxWallDurationPerJobLimit", "BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionTimeLimit",
    "QOSMaxCpuPerJobLimit", "QOSMaxGRESPerJob", "QOSMaxMemoryPerJob", "QOSMaxNodePerJobLimit",
    "QOSMaxWallDurationPerJobLimit", "QOSNotAllowed",
})  # fmt: skip

# The reason both of a job that asks for more nodes than the partition allows and of one whose nodes are down.
NODE_LIMIT_REASON = "PartitionNodeLimit"

# States that Slurm changes within seconds if it queues the job again.
LEFT_TO_SLURM = ("PREEMPTED", "NODE_FAIL")
ANSWER_LIMIT_S = 60.0

# As the plugin does (its dynamic_check_threshold).
NUM_INTERVALS_KEPT = 3

# What a shell replaces, or ends a word at, within the plugin's quotes.
_SHELL_CHARACTERS = re.compile(r"[$`\\\"'!\n]")

States = dict[str, str]  # of a job's number
Query = Callable[[str, Any], Awaitable[tuple[States | None, float | None]]]
Check = Callable[[Any, Any], AsyncIterator[Any]]


def answer(*command: str) -> str:
    """What a command of Slurm prints; empty where it fails, is missing or takes too long, since it is called again later."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_LIMIT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def require_plain_words(words: Iterable[object]) -> None:
    """Raises UserError for a directory, a configuration file or a value of `--config` that would not reach a job unchanged."""
    for word in map(str, words):
        if found := _SHELL_CHARACTERS.search(word):
            raise UserError(
                f"{word!r}: {found.group()!r} found, which a shell on the cluster would read; expected directories, names of "
                "configuration files and values of --config without $ ` \\ \" ' !; rename it, or write the value into a file "
                "for --configfile"
            )


class JobStates:
    """The states of a run's jobs, remembered from one check to the next."""

    def __init__(self) -> None:
        self.before: States = {}
        self.is_answering = True

    def understood(self, states: States, *, is_whole: bool) -> States:
        """The states in the plugin's own words.

        A job that is still PREEMPTED at the next check is not coming back, nor one that Slurm has forgotten; both count as
        cancelled, and their next start goes on from what they left. `is_whole`: a job that is missing from `states` is
        forgotten; sacct's answers may lack one for a while.
        """
        states = {job_id: state.split()[0] for job_id, state in states.items() if state}
        given_up = {job for job, state in states.items() if state in LEFT_TO_SLURM and self.before.get(job) == state}
        for job_id in given_up:
            answer("scancel", job_id)  # or it might come back after all, beside its replacement
        forgotten = self.before.keys() - states.keys() if is_whole else set()
        self.before = states
        return states | dict.fromkeys(given_up | forgotten, "CANCELLED")

    def unanswered(self) -> States:
        """Keeps all jobs while Slurm does not answer."""
        if self.is_answering:
            log("Slurm does not report the states of its jobs; waiting for them and asking again")
        self.is_answering = False
        return {}


def with_known_states(query: Query) -> Query:
    """Wraps the plugin's query for the states of its jobs, so that it gets states that it knows."""
    known = JobStates()

    async def query_job_status(command: str, logger: Any) -> tuple[States | None, float | None]:
        states, duration_s = await query(command, logger)
        if states is None:
            return known.unanswered(), 0.0
        known.is_answering = True
        return known.understood(states, is_whole=command.startswith("squeue")), duration_s

    return query_job_status


def is_over_the_limit(num_nodes: int, partition: str) -> bool:
    """Whether a partition allows no job so many nodes; False if that is not known."""
    limit = re.search(r"\bMaxNodes=(\d+)", answer("scontrol", "--oneliner", "show", "partition", partition))
    return limit is not None and num_nodes > int(limit.group(1))


def hopeless_jobs(run_uuid: str) -> States:
    """Slurm's reason for each waiting job of this run that will never start."""
    format_ = "--format=%i|%r|%D|%P"
    reasons = {}
    for line in answer("squeue", "--noheader", f"--name={run_uuid}", "--states=PENDING", format_).splitlines():
        job_id, reason, num_nodes, partition = line.split("|")
        is_limit = reason == NODE_LIMIT_REASON and is_over_the_limit(int(num_nodes), partition)
        if is_limit or reason in HOPELESS_REASONS:
            reasons[job_id] = reason
    return reasons


def give_up(executor: Any, job: Any, reason: str) -> None:
    """Cancels a job that will never start, and reports it as failed with Slurm's reason, for good."""
    answer("scancel", job.external_jobid)
    job.job.attempt = job.job.restart_times + 1  # the same request again would wait as long
    message = (
        f"Slurm accepted job '{job.external_jobid}' but will never start it: {reason}. It is cancelled. Ask for less or for "
        "something else (partition, account, walltime, nodes: slurm/config.yaml), then give the same command again. "
    )
    executor.report_job_error(job, msg=message)


def cancel_hopeless_jobs(check: Check) -> Check:
    """Wraps the plugin's check of its jobs: hopeless ones are cancelled, and the interval between checks stays the one asked for.

    That is `slurm-init-seconds-before-status-checks`.
    """

    async def check_active_jobs(self: Any, active_jobs: Any) -> AsyncIterator[Any]:
        hopeless = hopeless_jobs(self.run_uuid)
        for job in active_jobs:
            if job.external_jobid in hopeless:
                give_up(self, job, hopeless[job.external_jobid])
        avoided_nodes = set(self._failed_nodes)
        async for job in check(self, [job for job in active_jobs if job.external_jobid not in hopeless]):
            yield job
        self._failed_nodes = avoided_nodes
        self.next_seconds_between_status_checks = self.workflow.executor_settings.init_seconds_before_status_checks

    return check_active_jobs


def cancel_all_jobs(cancel: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Wraps the plugin's cancellation, which ends a run: what Slurm still has of this run is cancelled, too."""

    def cancel_jobs(self: Any, active_jobs: Any) -> None:
        cancel(self, active_jobs)
        named = answer("squeue", "--noheader", f"--name={self.run_uuid}", "--format=%i").split()
        if left := sorted(set(named) - {job.external_jobid for job in active_jobs}):
            answer("scancel", *left)

    return cancel_jobs


def status_command(asked_for: str | None, interval_s: int, min_job_age_s: int | None) -> str:
    """The command of Slurm that reports ended jobs: sacct where it answers, else squeue.

    That no cluster answers at all is no error here: `prefetch` submits nothing, and the first submission fails by itself.

    Raises UserError where squeue forgets jobs so soon that their end could be missed. `min_job_age_s` is the cluster's
    MinJobAge; 0 means never.
    """
    if asked_for != "squeue":
        try:
            asked = subprocess.run(["sacct", "--noheader", "--allocations"], capture_output=True, text=True)
            reason = asked.stderr.strip()
        except OSError as error:
            reason = str(error.strerror)
        else:
            if asked.returncode == 0:
                return "sacct"
        log(f"sacct does not answer ({reason}); squeue reports how jobs ended")
    if min_job_age_s and min_job_age_s < NUM_INTERVALS_KEPT * interval_s:
        raise UserError(
            f"squeue: Slurm forgets jobs {min_job_age_s} s after their end (MinJobAge), at least {NUM_INTERVALS_KEPT} intervals "
            f"of {interval_s} s expected, or the end of one could be missed; set SLURM_POLL_S lower, or have accounting set up"
        )
    return "squeue"


def patch_slurm_plugin(settings: Any) -> None:
    """Corrects the plugin in this process; call it once, with the settings of the executor, whichever that is."""
    if not isinstance(settings, plugin.ExecutorSettings):
        return
    interval_s = settings.init_seconds_before_status_checks
    settings.status_command = status_command(settings.status_command, interval_s, plugin.get_min_job_age())
    # Known already. The plugin asks for it at each check, and would use sacct where the answer is none or 0.
    plugin.get_min_job_age = lambda: NUM_INTERVALS_KEPT * interval_s
    plugin.query_job_status = with_known_states(plugin.query_job_status)
    plugin.Executor.check_active_jobs = cancel_hopeless_jobs(plugin.Executor.check_active_jobs)
    plugin.Executor.cancel_jobs = cancel_all_jobs(plugin.Executor.cancel_jobs)
