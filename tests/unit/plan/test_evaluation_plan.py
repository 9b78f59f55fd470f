"""Answers, and the time that reading the weights for each of their tokens takes."""

from pathlib import Path

import pytest

from helpers.evaluation_inputs import benchmark_rows
from scripts.plan.evaluation_plan import (
    PROMPT_MFU,
    PROMPT_TOKENS,
    SHORT_ANSWER_TOKENS,
    Asking,
    benchmark_lines,
    minutes,
)
from scripts.plan.gpus import Gpu
from scripts.plan.stacks import Model, Stack

GPU = Gpu("a card", 80, 100, 1000)
MODEL = Model(Stack(10, 64, 128, 64, 32, vocab_size=1000))
ASKING = Asking(num_models=4, num_seeds=2, num_under_way=10, max_tokens=640, num_servers=2, gpus_a_server=1)


def test_each_wave_of_answers_reads_the_weights_once_for_each_token() -> None:
    short, longest = minutes(95, ASKING, MODEL, 2, GPU)
    prompts_s = 95 * MODEL.language.forward_flop(PROMPT_TOKENS) / (2 * 100e12 * PROMPT_MFU)
    token_s = 2 * MODEL.num_parameters / 1000e9
    assert short * 60 == pytest.approx(prompts_s + 10 * SHORT_ANSWER_TOKENS * token_s)
    assert longest * 60 == pytest.approx(prompts_s + 10 * 640 * token_s)


def test_a_table_that_is_there_is_counted_and_one_that_is_not_is_said(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    (line,) = benchmark_lines("mine", table, ASKING, MODEL, 2, [GPU])
    assert line.startswith(f"mine: questions unknown until {table} is there")
    rows = benchmark_rows(3)
    table.write_text("\t".join(rows[0]) + "\n" + "".join("\t".join(map(str, row.values())) + "\n" for row in rows))
    first, second = benchmark_lines("mine", table, ASKING, MODEL, 2, [GPU])
    assert first.startswith(
        "mine: 24 answers (3 questions, models: 4, seeds: 2) of up to 640 tokens; servers: 2, GPUs of each: 1"
    )
    assert second.startswith("  a card")
