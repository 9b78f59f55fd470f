"""What each rank records of each step, and what is concluded from it: samples and times.

Each rank appends one line a step to `steps-rankN.jsonl`. After a kill some steps run again; the last line of a step
counts, so that nothing is counted twice.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.train.json_lines import read_lines
from scripts.train.metrics import StepTimes


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step as one rank saw it. `end_time_s` is seconds since the epoch.

    `peak_gpu_memory_gib` is the most that torch had reserved on the rank's GPU since the trainer's start; None on a CPU.
    """

    step: int
    num_samples: int
    num_tokens: int
    step_time_s: float
    end_time_s: float
    peak_gpu_memory_gib: float | None = None


def read_all_steps(path: Path) -> list[StepRecord]:
    """Every record in the order of writing; a step that ran twice is there twice."""
    return [StepRecord(**line) for line in read_lines(path)]


def read_steps(path: Path, last_step: int) -> dict[int, StepRecord]:
    """The record of each step up to `last_step`; of a step that ran twice, the later one."""
    return {record.step: record for record in read_all_steps(path) if record.step <= last_step}


def samples_per_step(
    *,
    num_rows: int,
    num_processes: int,
    batch_size: int,
    accumulation: int,
    drop_last: bool,
    num_steps: int,
) -> list[int]:
    """How many samples each optimizer step sees over all processes, as ms-swift's sampler deals them.

    In each epoch every process gets num_rows // num_processes rows; the few rows left over are skipped, others each epoch.
    They come in batches, of which the last may be smaller. `accumulation` batches make a step, fewer make an epoch's last.
    """
    rows_per_process = num_rows // num_processes
    batches = [batch_size] * (rows_per_process // batch_size)
    if rows_per_process % batch_size and not drop_last:
        batches.append(rows_per_process % batch_size)
    epoch = [sum(batches[i : i + accumulation]) * num_processes for i in range(0, len(batches), accumulation)]
    if not epoch:
        return []
    return [epoch[i % len(epoch)] for i in range(num_steps)]


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]


def step_times(records: Sequence[StepRecord]) -> StepTimes:
    """Median and 90 % quantile of a step's time."""
    times_s = [record.step_time_s for record in records]
    return StepTimes(median=round(statistics.median(times_s), 6), p90=round(quantile(times_s, 0.9), 6))
