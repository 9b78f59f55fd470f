"""Corrects Snakemake's Slurm plugin (2.8.0) where it would leave an unattended run waiting, or fail on a site unlike its own.

docs/slurm-plugin.md has a note for its authors of each: what, why, how to reproduce.

- It waits for ever for a job in a state that it does not know. It knows CANCELLED, but sacct reports `CANCELLED by 1000`
  for each job that somebody cancels.
- It leaves a preempted job, and one whose node died, to Slurm, which may or may not queue it again.
- It waits for a job that Slurm accepts and will never start, for example one whose walltime is over the partition's, and for
  one that Slurm holds after it could not be started. It never says why a job waits.
- When Slurm does not answer once, it forgets all of its jobs and waits for ever.
- It uses sacct wherever the command exists, also where it never answers because the cluster has no accounting.
- It waits 10 s longer before each check, up to 180 s, unless a job has finished: after a walltime the next job would start
  much later than the polling interval allows.
- It puts paths and values of `--config` into a command that two shells read, where `$(…)` in them would run.
- Ctrl-C while it asks for states cancels nothing: Snakemake keeps its jobs in no list then, and they would run on.
- After a node's death it avoids all nodes of that job for the rest of the run; Slurm knows better which ones are down.
- It takes a submission that Slurm refuses for the moment (too many jobs, no controller) for a failed job, which uses up a retry
  a second.
- It needs sacctmgr or sshare for an account, sacct without one, and then guesses the account of the last job. sbatch knows.
- It refuses types of GPUs with hyphens, which is how NVIDIA's library names them, and cannot ask by `--gpus-per-node`.
- It submits again what has just refused to start once more, or has run out of the same memory twice.
- It gives jobs the limits of the login shell (processor time, stack) and what SBATCH_* variables say.
"""

import asyncio
import math
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as plugin

from scripts.common.errors import UserError
from scripts.common.logger import log
from scripts.common.units import duration
from scripts.train.slurm_commands import ANSWER_LIMIT_S, answer, ask
from scripts.train.starts import NO_MORE_STARTS
from scripts.workflow.failed_jobs import last_error, output_of, reports_out_of_memory
from scripts.workflow.waiting_jobs import (
    HELD_REASONS,
    NewReasons,
    is_hopeless,
    meaning,
    nodes_that_could_not_start,
    waiting_jobs,
)

# Ends that the plugin does not know (slurm.schedmd.com/job_state_codes.html), in its words.
FAILED_STATES = {"REVOKED": "CANCELLED", "LAUNCH_FAILED": "FAILED", "RECONFIG_FAIL": "FAILED"}

# States that Slurm changes within seconds if it queues the job again.
LEFT_TO_SLURM = ("PREEMPTED", "NODE_FAIL")

# A second time with the same memory is the step's own need.
MAX_OUT_OF_MEMORY = 2

# As the plugin does (its dynamic_check_threshold).
NUM_INTERVALS_KEPT = 3

# What a shell replaces, or ends a word at, within the plugin's quotes.
_SHELL_CHARACTERS = re.compile(r"[$`\\\"'!\n]")

States = dict[str, str]  # of a job's number
Query = Callable[[str, Any], Awaitable[tuple[States | None, float | None]]]
Check = Callable[[Any, Any], AsyncIterator[Any]]


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
        words = {job_id: state.split()[0] for job_id, state in states.items() if state}
        states = {job_id: FAILED_STATES.get(word, word) for job_id, word in words.items()}
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


def give_up(executor: Any, job: Any, reason: str) -> None:
    """Cancels a job that will never start, and reports it as failed with Slurm's reason, for good."""
    answer("scancel", job.external_jobid)
    job.job.attempt = job.job.restart_times + 1  # the same request again would wait as long
    message = (
        f"Slurm accepted job '{job.external_jobid}' but will never start it: {reason}. It is cancelled. Ask for less or for "
        "something else (partition, account, walltime, nodes: slurm/config.yaml), then give the same command again. "
    )
    executor.report_job_error(job, msg=message)


def start_anew(executor: Any, job: Any, reason: str) -> None:
    """Cancels a job that is held, and reports it as failed, so that Snakemake submits it again."""
    nodes = nodes_that_could_not_start(job.external_jobid)
    answer("scancel", job.external_jobid)
    where = f" Nodes that could not start it, or are drained: {nodes}; tell the cluster's support." if nodes else ""
    message = (
        f"Slurm holds job '{job.external_jobid}' ({meaning(reason)}). It is cancelled, and submitted again.{where} "
    )
    log(f"{job.job.name}: {message}")
    executor.report_job_error(job, msg=message)


def cancel_hopeless_jobs(check: Check) -> Check:
    """Wraps the plugin's check of its jobs: it tells why jobs wait, and cancels hopeless and held ones.

    The interval between checks stays the one asked for (`slurm-init-seconds-before-status-checks`).
    """
    new_reasons = NewReasons()

    async def check_active_jobs(self: Any, active_jobs: Any) -> AsyncIterator[Any]:
        # Not in this thread's loop, which also submits: squeue may take its time.
        waiting = await asyncio.to_thread(waiting_jobs, self.run_uuid) if active_jobs else []
        for line in new_reasons.lines(waiting, {job.external_jobid: job.job.name for job in active_jobs}):
            log(line)
        found_of = {found.job_id: found for found in waiting}
        ended = set()
        for job in active_jobs:
            found = found_of.get(job.external_jobid)
            if found and (found.reason in HELD_REASONS or is_hopeless(found)):
                (start_anew if found.reason in HELD_REASONS else give_up)(self, job, found.reason)
                ended.add(found.job_id)
        avoided_nodes = set(self._failed_nodes)
        async for job in check(self, [job for job in active_jobs if job.external_jobid not in ended]):
            yield job
        self._failed_nodes = avoided_nodes
        self.next_seconds_between_status_checks = self.workflow.executor_settings.init_seconds_before_status_checks

    return check_active_jobs


def without_vain_retries(report: Callable[..., None]) -> Callable[..., None]:
    """Wraps the report of a failed job: not submitted again, each time behind others in the queue, where that is in vain.

    That is a training that refuses to start once more (scripts/train/starts.py, which also counts its starts without memory),
    and any other step that has run out of memory twice, with the same memory.
    """
    num_out_of_memory: Counter[int] = Counter()  # of a job

    def report_job_error(self: Any, job_info: Any, msg: str | None = None, **options: Any) -> None:
        job, path = job_info.job, (job_info.aux or {}).get("slurm_logfile")
        output = output_of(Path(path)) if path else ""
        num_out_of_memory[job.jobid] += reports_out_of_memory(f"{msg}\n{output}")
        is_vain = num_out_of_memory[job.jobid] >= MAX_OUT_OF_MEMORY and job.name not in ("stage1", "stage2")
        if is_vain or any(NO_MORE_STARTS in line for line in last_error(output.splitlines())[:1]):
            job.attempt = job.restart_times + 1
        report(self, job_info, msg=msg, **options)

    return report_job_error


def cancel_all_jobs(
    cancel: Callable[[Any, Any], None], is_ended: threading.Event | None = None
) -> Callable[[Any, Any], None]:
    """Wraps the plugin's cancellation, which ends a run: what Slurm still has of this run is cancelled, too."""

    def cancel_jobs(self: Any, active_jobs: Any) -> None:
        if is_ended:
            is_ended.set()
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
        answered, reason = ask("sacct", "--noheader", "--allocations")
        if answered is not None:
            return "sacct"
        log(f"sacct does not answer ({reason}); squeue reports how jobs ended")
    if min_job_age_s and min_job_age_s < NUM_INTERVALS_KEPT * interval_s:
        raise UserError(
            f"squeue: Slurm forgets jobs {min_job_age_s} s after their end (MinJobAge), at least {NUM_INTERVALS_KEPT} intervals "
            f"of {interval_s} s expected, or the end of one could be missed; set SLURM_POLL_S lower, or have accounting set up"
        )
    return "squeue"


# Of sbatch's answers: what another moment may change. The first are of one's own limit of jobs, the others of a controller
# that is away or too busy.
_FOR_THE_MOMENT = re.compile(
    r"Max\w*Submit|submit limit|temporarily unable to accept|Unable to contact slurm controller|Socket timed out|"
    r"Zero Bytes were transmitted|Resource temporarily unavailable|Connection (refused|reset|timed out)"
)
FIRST_PAUSE_S, LONGEST_PAUSE_S, REFUSED_LIMIT_S = 2.0, 600.0, 24 * 3600.0


class Submission(threading.local):
    """Of the thread that submits a job: what sbatch said when it refused it."""

    refusal: str | None = None
    is_kept = False  # rather than reported


class PatientSubmission:
    """Submits a job again, with growing pauses, while Slurm refuses it for the moment."""

    def __init__(self, run_job: Callable[[Any, Any], None], report: Callable[[Any, Any, str], None]) -> None:
        self._run_job, self._report = run_job, report
        self._now = Submission()
        self.is_ended = threading.Event()  # the run is over

    def report_error(self, executor: Any, job_info: Any, msg: str) -> None:
        """In place of the plugin's report that a submission failed."""
        if self._now.is_kept:
            self._now.refusal = msg
        else:
            self._report(executor, job_info, msg)

    def run_job(self, executor: Any, job: Any) -> None:
        """In place of the plugin's submission."""
        pause_s, waited_s = FIRST_PAUSE_S, 0.0
        while True:
            self._now.is_kept, self._now.refusal = True, None
            try:
                self._run_job(executor, job)
            finally:
                self._now.is_kept = False
            refusal = self._now.refusal
            if refusal is None:
                return
            if not _FOR_THE_MOMENT.search(refusal) or waited_s >= REFUSED_LIMIT_S or self.is_ended.is_set():
                self._report(executor, plugin.SubmittedJobInfo(job), refusal)
                return
            said = " ".join(refusal.partition("sbatch call:")[0].split())
            log(f"{job.name}: {said} Trying again in {duration(pause_s)}.")
            self.is_ended.wait(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, LONGEST_PAUSE_S)


# Resource `slurm_gpu_option`: how a site wants to be asked for the GPUs of a node.
GPU_OPTIONS = ("gres", "gpus-per-node", "none")


def gpu_words(job: Any) -> str:
    """The option of sbatch for a job's GPUs, from its resources `gres` (gpu:NUMBER), `slurm_gpu_type`, `slurm_gpu_option`.

    The option `none` gives nothing, for sites that give whole nodes. Raises UserError.
    """
    gres = str(job.resources.get("gres") or "")
    if not gres:
        return ""
    option, kind = job.resources.get("slurm_gpu_option") or "gres", str(job.resources.get("slurm_gpu_type") or "")
    if option not in GPU_OPTIONS:
        raise UserError(f"SLURM_GPU_OPTION: {option!r} found; expected one of {', '.join(GPU_OPTIONS)}; correct it")
    if not re.fullmatch(r"[\w.:-]+", gres) or not re.fullmatch(r"[\w.-]*", kind):
        raise UserError(
            f"SLURM_GPU_TYPE: {kind!r} found (gres {gres!r}); expected a type as `sinfo -o %G` shows it; correct it"
        )
    if option == "none":
        return ""
    name, _, number = gres.partition(":")
    typed = f"{kind}:{number}" if kind else number
    return f" --gpus-per-node={typed}" if option == "gpus-per-node" else f" --gres={name}:{typed}"


def without_limits_of_the_shell(get_submit_command: Callable[..., str]) -> Callable[..., str]:
    """Wraps the plugin's command: limits of the login shell would kill a training hours later, by signal 24."""

    def get_command(*arguments: Any, **options: Any) -> str:
        return get_submit_command(*arguments, **options) + " --propagate=NONE"

    return get_command


class LimitedCommands:
    """In place of the module `subprocess` in the plugin: a command that hangs counts as one that failed.

    While one hangs, others of its name are not tried: the plugin asks up to ten times in a row why a job has failed.
    """

    def __init__(self) -> None:
        self._hung_at: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def check_output(self, command: Any, **options: Any) -> Any:
        name = (command.split() if isinstance(command, str) else command)[0]
        no_answer = subprocess.CalledProcessError(1, command, stderr=f"{name}: no answer within {ANSWER_LIMIT_S:.0f} s")
        if time.monotonic() - self._hung_at.get(name, -math.inf) < ANSWER_LIMIT_S:
            raise no_answer
        try:
            return subprocess.check_output(command, **{"timeout": ANSWER_LIMIT_S, **options})
        except subprocess.TimeoutExpired:
            self._hung_at[name] = time.monotonic()
            log(f"{no_answer.stderr}; going on without its answer")
            raise no_answer from None


# What a user may rightly have set for all jobs; the rest would change what a job of ours is.
_KEPT_SBATCH_VARIABLES = frozenset({"SBATCH_ACCOUNT", "SBATCH_QOS", "SBATCH_RESERVATION", "SBATCH_CONSTRAINT"})
_FEDERATION_VARIABLES = ("SLURM_CLUSTERS", "SBATCH_CLUSTERS")


def forget_options_of_the_shell() -> None:
    """Removes variables by which sbatch and srun would take other options than ours. Raises UserError for other clusters."""
    for name in _FEDERATION_VARIABLES:
        if value := os.environ.get(name):
            raise UserError(
                f"{name}: {value!r} found; expected none: jobs on other clusters (sbatch -M) are not supported, since their "
                "states and leftovers would not be found; unset it, and start where the cluster's own login node is"
            )
    names = [
        name
        for name in os.environ
        if name == "SLURM_EXPORT_ENV" or (name.startswith(("SBATCH_", "SRUN_")) and name not in _KEPT_SBATCH_VARIABLES)
    ]
    for name in names:
        del os.environ[name]
    if names:
        log(f"not passed on to jobs, as each says itself what it needs: {', '.join(sorted(names))}")


def patch_slurm_plugin(settings: Any) -> None:
    """Corrects the plugin in this process; call it once, with the settings of the executor, whichever that is."""
    if not isinstance(settings, plugin.ExecutorSettings):
        return
    forget_options_of_the_shell()
    interval_s = settings.init_seconds_before_status_checks
    settings.status_command = status_command(settings.status_command, interval_s, plugin.get_min_job_age())
    # Known already. The plugin asks for it at each check, and would use sacct where the answer is none or 0.
    plugin.get_min_job_age = lambda: NUM_INTERVALS_KEPT * interval_s
    plugin.query_job_status = with_known_states(plugin.query_job_status)
    plugin.subprocess = LimitedCommands()
    plugin.validate_account = lambda account, logger: account
    plugin.get_account = lambda logger: None
    plugin.set_gres_string = gpu_words
    plugin.get_submit_command = without_limits_of_the_shell(plugin.get_submit_command)
    executor = plugin.Executor
    submission = PatientSubmission(executor.run_job, executor._report_job_error_threadsafe)
    executor.run_job = lambda self, job: submission.run_job(self, job)
    executor._report_job_error_threadsafe = lambda self, job_info, msg: submission.report_error(self, job_info, msg)
    executor.check_active_jobs = cancel_hopeless_jobs(executor.check_active_jobs)
    executor.report_job_error = without_vain_retries(executor.report_job_error)
    executor.cancel_jobs = cancel_all_jobs(executor.cancel_jobs, submission.is_ended)
