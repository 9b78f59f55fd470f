"""What a training run leaves in its work directory, and what is concluded from it: steps, samples, losses, times.

Each rank appends one line a step to `steps-rankN.jsonl`. After a kill some steps run again; the last line of a step is
the one that counts, so nothing is counted twice.
"""

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The first loss after a resume may be at most twice the largest of the last few before, and a little more. Coarse on
# purpose: batches differ. The exact guard is the comparison of every weight when training begins.
LOSS_WINDOW = 5
LOSS_FACTOR = 2.0
LOSS_MARGIN = 0.5


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step as one rank saw it. `end_time_s` is seconds since the epoch.

    `peak_gpu_memory_gib` is what torch had taken of the rank's GPU at most, since the trainer's start; None on a CPU.
    """

    step: int
    num_samples: int
    num_tokens: int
    step_time_s: float
    end_time_s: float
    peak_gpu_memory_gib: float | None = None


def steps_path(watch_dir: Path, rank: int) -> Path:
    return watch_dir / f"steps-rank{rank}.jsonl"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file that is appended to; lines cut off by a kill are passed over."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(value, dict):
                yield value


def read_steps(path: Path, last_step: int) -> dict[int, StepRecord]:
    """The record of each step up to `last_step`; where a step ran twice, the later one."""
    records = (StepRecord(**line) for line in read_lines(path))
    return {record.step: record for record in records if record.step <= last_step}


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

    Each epoch every process gets num_rows // num_processes rows (the few that do not divide are left out, others each
    epoch), in batches of which the last may be smaller; `accumulation` batches make a step, fewer the epoch's last.
    """
    rows_per_process = num_rows // num_processes
    batches = [batch_size] * (rows_per_process // batch_size)
    if rows_per_process % batch_size and not drop_last:
        batches.append(rows_per_process % batch_size)
    epoch = [sum(batches[i : i + accumulation]) * num_processes for i in range(0, len(batches), accumulation)]
    if not epoch:
        return []
    return [epoch[i % len(epoch)] for i in range(num_steps)]


def losses_of(log_history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Step, loss, learning rate and gradient norm from the trainer's own log, without its summary lines."""
    return [
        {
            "step": entry["step"],
            "loss": entry["loss"],
            "learning_rate": entry.get("learning_rate"),
            "grad_norm": entry.get("grad_norm"),
        }
        for entry in log_history
        if "loss" in entry
    ]


def loss_limit(losses_before: Sequence[float]) -> float:
    """The largest loss that still counts as going on from `losses_before`."""
    if not losses_before:
        return math.inf
    return LOSS_FACTOR * max(losses_before[-LOSS_WINDOW:]) + LOSS_MARGIN


def loss_goes_on(losses_before: Sequence[float], loss_after: float) -> bool:
    """Whether the first loss after a resume fits those before it."""
    return math.isfinite(loss_after) and loss_after <= loss_limit(losses_before)


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]


def step_times(records: Sequence[StepRecord]) -> dict[str, float]:
    """Median and 90 % quantile of a step's duration."""
    durations = [record.step_time_s for record in records]
    return {"median": round(statistics.median(durations), 6), "p90": round(quantile(durations, 0.9), 6)}
