"""Slurm's answers are turned into states that Snakemake's plugin understands, at the interval that was asked for."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin

from scripts.common.errors import UserError
from scripts.workflow.slurm_plugin import (
    JobStates,
    cancel_all_jobs,
    cancel_hopeless_jobs,
    hopeless_jobs,
    require_plain_words,
    status_command,
    with_known_states,
)

LOGGER = logging.getLogger(__name__)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Stands in for a command of Slurm's by a line of shell. The real ones: tests/cluster."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(command: str, line: str) -> None:
        (tmp_path / command).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / command).chmod(0o755)

    return write


def test_a_cancelled_job_is_cancelled_whoever_did_it() -> None:
    states = {"1": "CANCELLED by 1000", "2": "COMPLETED", "3": "OUT_OF_MEMORY"}
    assert JobStates().understood(states, is_whole=True) == {"1": "CANCELLED", "2": "COMPLETED", "3": "OUT_OF_MEMORY"}


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_a_job_is_left_to_slurm_for_one_look_and_given_up_when_it_did_not_come_back(
    slurm: Callable[[str, str], None], tmp_path: Path, state: str
) -> None:
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    known = JobStates()
    assert known.understood({"1": state, "2": state}, is_whole=True) == {"1": state, "2": state}
    assert known.understood({"1": state, "2": "PENDING"}, is_whole=True) == {"1": "CANCELLED", "2": "PENDING"}
    assert (tmp_path / "cancelled").read_text() == "1\n"
    assert known.understood({"1": "CANCELLED", "2": state}, is_whole=True)["2"] == state, (
        "it had come back, and it happened anew"
    )


def test_a_job_that_slurm_has_forgotten_is_not_waited_for() -> None:
    known = JobStates()
    known.understood({"1": "RUNNING", "2": "RUNNING"}, is_whole=True)
    assert known.understood({"2": "RUNNING"}, is_whole=True) == {"1": "CANCELLED", "2": "RUNNING"}
    assert known.understood({}, is_whole=False) == {}, "sacct may lack a job for a while"


def test_the_plugins_own_question_is_asked_and_its_answer_corrected() -> None:
    query = with_known_states(plugin.query_job_status)
    states, duration_s = asyncio.run(query("echo '7|CANCELLED by 0'", LOGGER))
    assert states == {"7": "CANCELLED"}
    assert duration_s is not None


def test_where_slurm_does_not_answer_nothing_is_known_of_any_job_and_that_is_logged_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    query = with_known_states(plugin.query_job_status)
    assert asyncio.run(query("echo '7|RUNNING'", LOGGER))[0] == {"7": "RUNNING"}
    for _ in range(2):
        assert asyncio.run(query("false", LOGGER)) == ({}, 0.0)
    assert capsys.readouterr().err.count("Slurm does not report") == 1
    assert asyncio.run(query("echo '7|RUNNING'", LOGGER))[0] == {"7": "RUNNING"}


def test_the_plugin_looks_at_its_jobs_by_what_is_corrected() -> None:
    names = plugin.Executor.check_active_jobs.__code__.co_names
    assert {"query_job_status", "next_seconds_between_status_checks", "get_min_job_age"} <= set(names)


def test_sacct_is_asked_where_it_answers(slurm: Callable[[str, str], None]) -> None:
    slurm("sacct", "true")
    assert status_command("sacct", 40, 2) == "sacct"


def test_squeue_is_asked_where_there_is_no_accounting_and_that_is_logged(
    slurm: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    slurm("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    assert status_command("sacct", 40, 300) == "squeue"
    assert status_command("sacct", 40, 0) == "squeue", "0 is never"
    assert status_command("sacct", 40, None) == "squeue", "the first submission reports that no cluster answers"
    assert "sacct does not answer (Slurm accounting storage is disabled); squeue" in capsys.readouterr().err


def test_a_cluster_that_forgets_jobs_too_soon_is_refused(slurm: Callable[[str, str], None]) -> None:
    slurm("sacct", "exit 1")
    for asked_for in ("sacct", "squeue"):
        with pytest.raises(
            UserError, match=r"forgets jobs 100 s after .*, at least 3 intervals of 40 s .* SLURM_POLL_S"
        ):
            status_command(asked_for, 40, 100)


def test_where_slurm_is_not_installed_squeue_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert status_command("sacct", 40, None) == "squeue"


class Executor:
    """What of the plugin's executor is touched."""

    def __init__(self) -> None:
        settings = SimpleNamespace(init_seconds_before_status_checks=40)
        self.workflow = SimpleNamespace(executor_settings=settings)
        self.next_seconds_between_status_checks = 40
        self.run_uuid = "run"
        self._failed_nodes = {"given-by-the-user"}
        self.errors: dict[str, str] = {}

    def report_job_error(self, job: Any, msg: str) -> None:
        self.errors[job.external_jobid] = msg


def look(executor: Executor, *job_ids: str) -> list[Any]:
    """One look of an executor's at these jobs, by a plugin that finds all of them running; gives those left."""

    async def check(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        for job in active_jobs:
            yield job
        self._failed_nodes.add("node[1-2]")
        self.next_seconds_between_status_checks += 10

    async def all_jobs() -> list[Any]:
        jobs = [SimpleNamespace(external_jobid=i, job=SimpleNamespace(attempt=1, restart_times=10)) for i in job_ids]
        left = [job.external_jobid async for job in cancel_hopeless_jobs(check)(executor, jobs)]
        return [left, {job.external_jobid: job.job.attempt for job in jobs}]

    return asyncio.run(all_jobs())


def test_the_interval_between_looks_stays_the_one_that_was_asked_for(slurm: Callable[[str, str], None]) -> None:
    slurm("squeue", "exit 1")
    executor = Executor()
    left, _ = look(executor, "1")
    assert left == ["1"]
    assert executor._failed_nodes == {"given-by-the-user"}, "which nodes are down is for Slurm to know"
    assert executor.next_seconds_between_status_checks == 40


def test_a_job_that_will_never_start_is_given_up_with_slurms_reason_and_not_submitted_again(
    slurm: Callable[[str, str], None], tmp_path: Path
) -> None:
    slurm("squeue", "echo '1|PartitionTimeLimit|1|gpu'; echo '2|Priority|1|gpu'")
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    executor = Executor()
    left, attempts = look(executor, "1", "2", "3")
    assert left == ["2", "3"]
    assert "will never start it: PartitionTimeLimit." in executor.errors.pop("1")
    assert not executor.errors
    assert attempts == {"1": 11, "2": 1, "3": 1}, "Snakemake submits again while restart_times > attempt - 1"
    assert (tmp_path / "cancelled").read_text() == "1\n"


@pytest.mark.parametrize("reason", ["JobHeldUser", "JobHeldAdmin", "Resources", "QOSMaxGRESPerUser", "Dependency"])
def test_a_job_that_a_person_or_time_can_let_go_on_is_waited_for(
    slurm: Callable[[str, str], None], tmp_path: Path, reason: str
) -> None:
    slurm("squeue", f"echo '1|{reason}|1|gpu'")
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    executor = Executor()
    left, attempts = look(executor, "1")
    assert (left, attempts, executor.errors) == (["1"], {"1": 1}, {})
    assert not (tmp_path / "cancelled").exists()


def test_a_cancelled_run_leaves_no_job_also_of_those_whose_states_are_being_asked(
    slurm: Callable[[str, str], None], tmp_path: Path
) -> None:
    """While Snakemake asks, its list of jobs is empty; here one of three is in it."""
    slurm("squeue", 'echo "$@" | grep -q -- --name=run && printf "1\\n2\\n3\\n"')
    slurm("scancel", f'echo "$@" >> {tmp_path}/cancelled')
    by_the_plugin: list[str] = []
    cancel = cancel_all_jobs(lambda executor, jobs: by_the_plugin.extend(job.external_jobid for job in jobs))
    cancel(Executor(), [SimpleNamespace(external_jobid="2")])
    assert (by_the_plugin, (tmp_path / "cancelled").read_text()) == (["2"], "1 3\n")


def test_nothing_more_is_cancelled_where_nothing_is_left(slurm: Callable[[str, str], None], tmp_path: Path) -> None:
    slurm("squeue", "echo 2")
    slurm("scancel", f"touch {tmp_path}/cancelled")
    cancel_all_jobs(lambda executor, jobs: None)(Executor(), [SimpleNamespace(external_jobid="2")])
    assert not (tmp_path / "cancelled").exists()


def test_more_nodes_than_a_partition_gives_are_hopeless_and_nodes_that_are_down_are_not(
    slurm: Callable[[str, str], None],
) -> None:
    slurm("squeue", "echo '1|PartitionNodeLimit|4|small'; echo '2|PartitionNodeLimit|2|small'")
    slurm("scontrol", "echo PartitionName=small MaxNodes=2 TotalNodes=8")
    assert hopeless_jobs("run") == {"1": "PartitionNodeLimit"}
    slurm("scontrol", "echo PartitionName=small MaxNodes=UNLIMITED TotalNodes=8")
    assert hopeless_jobs("run") == {}


@pytest.mark.parametrize(
    "word", ["results=$(touch x)", "/data/a`b`", 'results="x"', "it's.yaml", "a\\b", "a!b", "a\nb"]
)
def test_a_word_that_a_shell_on_the_cluster_would_read_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="which a shell on the cluster would read"):
        require_plain_words(["seed=1", Path("/home/me/my project"), word])


def test_other_words_reach_a_job_as_they_are() -> None:
    require_plain_words(["seed=1", "results=results/ä", Path("/home/me/my project/{x}.yaml"), "a={b: [1, 2]}"])
