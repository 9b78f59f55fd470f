"""How long a benchmark takes, as a range: each answer is read token by token, and each token reads all weights once.

Requests that are under way at a time share that reading (continuous batching). The prompts are computed as in training. The start
of the servers comes on top.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.plan.gpus import Gpu
from scripts.plan.stacks import Model
from scripts.questions.tables import read_benchmark

# Tokens of an answer: a letter with a reason, and one that thinks to the limit of `max_tokens`.
SHORT_ANSWER_TOKENS = 64
# Of a question with a picture of about a million pixels, which vLLM computes at about this share of the peak.
PROMPT_TOKENS = 1500
PROMPT_MFU = 0.3


@dataclass(frozen=True)
class Asking:
    """How a run asks: answers are all models' of all seeds."""

    num_models: int
    num_seeds: int
    num_under_way: int  # requests at a time, of all servers
    max_tokens: int
    num_servers: int
    gpus_a_server: int


def num_questions(path: Path) -> int | None:
    """Of a table that is there, else None."""
    return len(read_benchmark(path, needs_pictures=False)) if path.exists() else None


def minutes(num_answers: int, asking: Asking, model: Model, weight_bytes: int, gpu: Gpu) -> tuple[float, float]:
    """With short answers, and with answers up to the limit; without the start of the servers."""
    gpus = asking.num_servers * asking.gpus_a_server
    prompt_flop = model.language.forward_flop(PROMPT_TOKENS)
    prompts_s = num_answers * prompt_flop / (gpus * gpu.peak_tflop_s * 1e12 * PROMPT_MFU)
    token_s = model.num_parameters * weight_bytes / (asking.gpus_a_server * gpu.bandwidth_gb_s * 1e9)
    num_waves = math.ceil(num_answers / asking.num_under_way)
    short, longest = (prompts_s + num_waves * tokens * token_s for tokens in (SHORT_ANSWER_TOKENS, asking.max_tokens))
    return short / 60, longest / 60


def benchmark_lines(
    name: str, table_path: Path, asking: Asking, model: Model, weight_bytes: int, gpus: Sequence[Gpu]
) -> Iterator[str]:
    """What is asked, and how long it takes on each card."""
    found = num_questions(table_path)
    servers = f"servers: {asking.num_servers}, GPUs of each: {asking.gpus_a_server}"
    if found is None:
        yield f"{name}: questions unknown until {table_path} is there (`snakemake check`); {servers}"
        return
    num_answers = found * asking.num_models * asking.num_seeds
    yield (
        f"{name}: {num_answers:,} answers ({found:,} questions, models: {asking.num_models}, seeds: {asking.num_seeds}) of up to "
        f"{asking.max_tokens:,} tokens; {servers}"
    )
    for gpu in gpus:
        short, longest = minutes(num_answers, asking, model, weight_bytes, gpu)
        yield f"  {gpu.name:12} {max(short, 1):.0f} to {max(longest, 1):.0f} min, without the starts of the servers"
