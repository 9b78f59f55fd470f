"""Samples are counted as dealt, and steps that ran twice count once."""

import json
from pathlib import Path

import pytest

from scripts.train.metrics import StepTimes
from scripts.train.step_records import StepRecord, read_steps, samples_per_step, step_times


def deal(num_rows: int, num_processes: int, batch_size: int, accumulation: int, drop_last: bool) -> list[int]:
    """One epoch dealt row by row, as ms-swift's BatchSamplerShard does it (swift/dataloader/shard.py)."""
    per_rank = []
    for rank in range(num_processes):
        rows = list(range(num_rows // num_processes * num_processes))[rank::num_processes]
        batches, batch = [], []
        for row in rows:
            batch.append(row)
            if len(batch) == batch_size:
                batches.append(batch)
                batch = []
        if batch and not drop_last:
            batches.append(batch)
        per_rank.append(batches)
    steps = []
    for start in range(0, len(per_rank[0]), accumulation):
        steps.append(sum(len(batch) for batches in per_rank for batch in batches[start : start + accumulation]))
    return steps


@pytest.mark.parametrize("num_rows", [1, 7, 22, 23, 64])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (2, 2), (4, 1), (3, 4)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_samples_per_step_are_those_that_the_sampler_deals(
    num_rows: int, num_processes: int, batch_size: int, accumulation: int, drop_last: bool
) -> None:
    epoch = deal(num_rows, num_processes, batch_size, accumulation, drop_last)
    num_steps = 2 * len(epoch)
    assert samples_per_step(
        num_rows=num_rows, num_processes=num_processes, batch_size=batch_size, accumulation=accumulation,
        drop_last=drop_last, num_steps=num_steps,
    ) == epoch * 2  # fmt: skip


def test_training_may_end_within_an_epoch() -> None:
    steps = samples_per_step(num_rows=22, num_processes=1, batch_size=2, accumulation=2, drop_last=False, num_steps=8)
    assert steps == [4, 4, 4, 4, 4, 2, 4, 4]


def line(step: int, num_samples: int) -> str:
    record = {"step": step, "num_samples": num_samples, "num_tokens": 9, "step_time_s": 0.5, "end_time_s": 1.0}
    return json.dumps(record) + "\n"


def test_the_last_record_of_a_step_counts_and_torn_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(
        line(1, 4) + line(2, 4) + line(3, 1) + '{"step": 4, "num_sam\n\n' + line(3, 4) + line(4, 2) + line(5, 4)
    )
    records = read_steps(path, last_step=4)
    assert {step: record.num_samples for step, record in records.items()} == {1: 4, 2: 4, 3: 4, 4: 2}


def test_step_times_are_median_and_nearest_rank() -> None:
    records = [StepRecord(i, 1, 1, duration, 0.0) for i, duration in enumerate([1.0, 2.0, 3.0, 4.0, 50.0])]
    assert step_times(records) == StepTimes(median=3.0, p90=50.0)
