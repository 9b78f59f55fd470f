"""Slurm's answers are turned into states that Snakemake's plugin understands."""

import asyncio
import logging

import snakemake_executor_plugin_slurm as plugin

from common.slurm_states import mended, understood

LOGGER = logging.getLogger(__name__)


def test_a_cancelled_job_is_cancelled_whoever_did_it() -> None:
    states = {"1": "CANCELLED by 1000", "2": "COMPLETED", "3": "OUT_OF_MEMORY"}
    assert understood(states, set()) == {"1": "CANCELLED", "2": "COMPLETED", "3": "OUT_OF_MEMORY"}


def test_a_preempted_job_is_left_to_slurm_for_one_look_and_given_up_when_it_did_not_come_back() -> None:
    before: set[str] = set()
    assert understood({"1": "PREEMPTED", "2": "PREEMPTED"}, before) == {"1": "PREEMPTED", "2": "PREEMPTED"}
    assert understood({"1": "PREEMPTED", "2": "PENDING"}, before) == {"1": "CANCELLED", "2": "PENDING"}
    assert understood({"2": "PREEMPTED"}, before) == {"2": "PREEMPTED"}, "it had come back, and was preempted anew"


def test_the_plugin_asks_through_this_function_and_gets_its_answers_mended() -> None:
    query = mended(plugin.query_job_status)
    states, duration_s = asyncio.run(query("echo '7|CANCELLED by 0'", LOGGER))
    assert states == {"7": "CANCELLED"}
    assert duration_s is not None
    assert asyncio.run(query("false", LOGGER)) == (None, None)
    # What it reports as failed; were it to ask in another way, the module would have no such name.
    assert "query_job_status" in plugin.Executor.check_active_jobs.__code__.co_names
