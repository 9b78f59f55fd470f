"""What each rank records of each step, and what is concluded from it: samples and times.

Each rank appends one line a step to `steps-rankN.jsonl`. After a kill some steps run again; the last line of a step
counts, so that nothing is counted twice.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.train.json_lines import read_objects
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
    return read_objects(StepRecord, path)


def read_steps(path: Path, last_step: int) -> dict[int, StepRecord]:
    """The record of each step up to `last_step`; of a step that ran twice, the later one."""
    return {record.step: record for record in read_all_steps(path) if record.step <= last_step}


@dataclass(frozen=True)
class Dealing:
    """How ms-swift's sampler deals the rows of an epoch to the processes (swift/dataloader/shard.py: BatchSamplerShard).

    Every process gets num_rows // num_processes rows; the few left over are skipped, others each epoch. Grouped by length they
    are dealt as well, one more to each of the first processes. Rows come in batches, of which the last may be smaller.
    `accumulation` batches make a step, fewer make an epoch's last.
    """

    num_rows: int
    num_processes: int
    batch_size: int
    accumulation: int
    drop_last: bool
    is_grouped_by_length: bool

    def samples_of_an_epoch(self) -> list[int]:
        """How many samples each step of an epoch sees over all processes; empty where the rows make no batch."""
        rows_of_each, rows_left = divmod(self.num_rows, self.num_processes)
        batches = [self.batch_size * self.num_processes] * (rows_of_each // self.batch_size)
        if not self.drop_last and (rows_of_last_batch := rows_of_each % self.batch_size):
            extra = rows_left if self.is_grouped_by_length else 0
            batches.append(rows_of_last_batch * self.num_processes + extra)
        return [sum(batches[i : i + self.accumulation]) for i in range(0, len(batches), self.accumulation)]

    def samples_per_step(self, num_steps: int) -> list[int]:
        """The same for the steps of a training."""
        epoch = self.samples_of_an_epoch()
        return [epoch[i % len(epoch)] for i in range(num_steps)] if epoch else []


def sample_problem(step: int, num_seen: int, num_expected: int) -> str | None:
    """Error text if a step saw another number of samples than was dealt, else None."""
    if num_seen == num_expected:
        return None
    rows = "rows were dropped or repeated on their way into the model"
    return f"step {step} saw {num_seen} samples, {num_expected} expected; {rows}"


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]


def step_times(records: Sequence[StepRecord]) -> StepTimes:
    """Median and 90 % quantile of a step's time."""
    times_s = [record.step_time_s for record in records]
    return StepTimes(median=round(statistics.median(times_s), 6), p90=round(quantile(times_s, 0.9), 6))
