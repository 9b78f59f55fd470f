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

from common.errors import UserError
from common.slurm_plugin import at_the_interval_asked_for, status_command, understood, with_known_states

LOGGER = logging.getLogger(__name__)


def test_a_cancelled_job_is_cancelled_whoever_did_it() -> None:
    states = {"1": "CANCELLED by 1000", "2": "COMPLETED", "3": "OUT_OF_MEMORY"}
    assert understood(states, set()) == {"1": "CANCELLED", "2": "COMPLETED", "3": "OUT_OF_MEMORY"}


def test_a_preempted_job_is_left_to_slurm_for_one_look_and_given_up_when_it_did_not_come_back() -> None:
    before: set[str] = set()
    assert understood({"1": "PREEMPTED", "2": "PREEMPTED"}, before) == {"1": "PREEMPTED", "2": "PREEMPTED"}
    assert understood({"1": "PREEMPTED", "2": "PENDING"}, before) == {"1": "CANCELLED", "2": "PENDING"}
    assert understood({"2": "PREEMPTED"}, before) == {"2": "PREEMPTED"}, "it had come back, and was preempted anew"


def test_the_plugins_own_question_is_asked_and_its_answer_mended() -> None:
    query = with_known_states(plugin.query_job_status)
    states, duration_s = asyncio.run(query("echo '7|CANCELLED by 0'", LOGGER))
    assert states == {"7": "CANCELLED"}
    assert duration_s is not None
    assert asyncio.run(query("false", LOGGER)) == (None, None)


def test_the_plugin_looks_at_its_jobs_by_what_is_mended() -> None:
    names = plugin.Executor.check_active_jobs.__code__.co_names
    assert {"query_job_status", "next_seconds_between_status_checks"} <= set(names)


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Stands in for sacct (a line of shell) and for scontrol's MinJobAge. The real ones: tests/cluster."""

    def write(sacct: str, min_job_age_s: int) -> None:
        for name, line in {"sacct": sacct, "scontrol": f"echo 'MinJobAge = {min_job_age_s} sec'"}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return write


def test_sacct_is_asked_where_it_answers(answers: Callable[[str, int], None]) -> None:
    answers("true", 2)
    assert status_command("sacct", 40) == "sacct"


def test_squeue_is_asked_where_there_is_no_accounting_and_that_is_said(
    answers: Callable[[str, int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answers("echo Slurm accounting storage is disabled >&2; exit 1", 300)
    assert status_command("sacct", 40) == "squeue"
    assert "sacct does not answer (Slurm accounting storage is disabled); squeue" in capsys.readouterr().err


def test_a_cluster_that_forgets_jobs_too_soon_is_refused(answers: Callable[[str, int], None]) -> None:
    answers("exit 1", 100)
    for asked_for in ("sacct", "squeue"):
        with pytest.raises(
            UserError, match=r"forgets jobs 100 s after .*, at least 3 intervals of 40 s .* SLURM_POLL_S"
        ):
            status_command(asked_for, 40)


def test_the_interval_between_looks_stays_the_one_that_was_asked_for() -> None:
    async def check(self: Any, active_jobs: list[str]) -> AsyncIterator[str]:
        for job in active_jobs:
            yield job
        self.next_seconds_between_status_checks += 10

    settings = SimpleNamespace(init_seconds_before_status_checks=40)
    executor = SimpleNamespace(
        workflow=SimpleNamespace(executor_settings=settings), next_seconds_between_status_checks=40
    )

    async def look() -> list[str]:
        return [job async for job in at_the_interval_asked_for(check)(executor, ["still running"])]

    assert asyncio.run(look()) == ["still running"]
    assert executor.next_seconds_between_status_checks == 40
