"""Slurm's answers are turned into states that Snakemake's plugin understands, at the interval that was asked for."""

import asyncio
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import snakemake_executor_plugin_slurm as plugin

from common.slurm_plugin import at_the_interval_asked_for, understood, with_known_states

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
