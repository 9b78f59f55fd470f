"""Bytes of a GPU, part by part, and how far they are from what others have measured."""

from dataclasses import replace

import pytest

from benchmarks.plan import PUBLISHED_PATH, compare, median_memory_error, read_published
from scripts.plan.flop import Row, Trained
from scripts.plan.memory import (
    BUCKET_VALUES,
    CONTEXT_BYTES,
    HELD_PER_USED,
    Hardware,
    Sharding,
    memory_of,
    num_trained_values,
    stack_activations,
)
from scripts.plan.stacks import Aligner, Model, Stack

LANGUAGE = Stack(10, 64, 128, 64, 32, vocab_size=1000)
MODEL = Model(LANGUAGE, Stack(4, 32, 64, 32, 32, is_causal=False), Aligner(5000, 4))
EVERYTHING = Trained(tower=True, aligner=True, language=True)
BATCH = Row(200, 400)


def test_each_stage_of_zero_divides_one_part_more() -> None:
    num_values = MODEL.num_parameters
    found = {each: memory_of(MODEL, BATCH, EVERYTHING, Hardware(4, each)) for each in Sharding}
    assert [found[each].weights for each in Sharding] == [2 * num_values] * 3 + [num_values / 2]
    assert [found[each].gradients for each in Sharding] == [2 * num_values] * 2 + [num_values / 2] * 2
    assert [found[each].optimizer for each in Sharding] == [4 * num_values] + [3 * num_values] * 3


def test_a_frozen_part_has_neither_gradients_nor_moments() -> None:
    alone = replace(EVERYTHING, tower=False, language=False)
    assert num_trained_values(MODEL, alone) == 5000
    parts = memory_of(MODEL, BATCH, alone, Hardware(1, Sharding.ZERO2))
    assert (parts.weights, parts.gradients, parts.optimizer) == (2 * MODEL.num_parameters, 10000, 60000)
    assert parts.buffers == CONTEXT_BYTES + 2 * min(5000, BUCKET_VALUES)


def test_an_offloaded_optimizer_takes_nothing_of_the_gpu() -> None:
    assert memory_of(MODEL, BATCH, EVERYTHING, Hardware(1, Sharding.ZERO3, is_offloaded=True)).optimizer == 0


def test_checkpointing_keeps_the_input_of_each_block_and_one_block_whole() -> None:
    kept = stack_activations(LANGUAGE, 100, 2, is_checkpointed=False)
    assert stack_activations(LANGUAGE, 100, 2, is_checkpointed=True) == 10 * 100 * 64 * 2 + kept / 10


def test_a_frozen_tower_keeps_nothing() -> None:
    hardware = Hardware(1, Sharding.NONE)
    frozen, trained = (
        memory_of(MODEL, BATCH, each, hardware).activations for each in (replace(EVERYTHING, tower=False), EVERYTHING)
    )
    assert MODEL.tower and trained - frozen == stack_activations(MODEL.tower, 400, 2, is_checkpointed=True)


def test_logits_of_all_tokens_are_there_unless_the_loss_is_fused() -> None:
    whole = memory_of(MODEL, BATCH, EVERYTHING, Hardware(1, Sharding.NONE))
    fused = memory_of(MODEL, BATCH, EVERYTHING, Hardware(1, Sharding.NONE, has_fused_loss=True))
    assert whole.logits == 200 * 1000 * 14 and fused.logits == 0
    assert whole.total - fused.total == pytest.approx(HELD_PER_USED * whole.logits)


def test_published_trainings_need_what_the_plan_says_within_15_percent_in_the_median() -> None:
    compared = [compare(training) for training in read_published(PUBLISHED_PATH)]
    assert sum(each.memory_error is not None for each in compared) >= 7
    assert median_memory_error(compared) <= 0.15
