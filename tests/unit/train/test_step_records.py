"""Samples are counted as dealt, and steps that ran twice count once."""

import json
from pathlib import Path

import pytest

from scripts.train.metrics import StepTimes
from scripts.train.step_records import Dealing, StepRecord, read_steps, step_times


def deal(dealing: Dealing) -> list[int]:
    """One epoch dealt row by row, as ms-swift's BatchSamplerShard does it (swift/dataloader/shard.py)."""
    num_processes, batch_size = dealing.num_processes, dealing.batch_size
    rows_of_each = dealing.num_rows // num_processes
    num_dealt = dealing.num_rows if dealing.is_grouped_by_length else rows_of_each * num_processes
    per_rank = []
    for rank in range(num_processes):
        batches, batch = [], []
        for row in list(range(num_dealt))[rank::num_processes]:
            batch.append(row)
            if len(batch) == batch_size:
                batches.append(batch)
                batch = []
        if batch and not dealing.drop_last:
            batches.append(batch)
        per_rank.append(batches)
    # The trainer takes as many batches as the sampler says that it has.
    num_batches = rows_of_each // batch_size if dealing.drop_last else -(-rows_of_each // batch_size)
    steps = []
    for start in range(0, num_batches, dealing.accumulation):
        taken = range(start, min(start + dealing.accumulation, num_batches))
        steps.append(sum(len(batches[number]) for batches in per_rank for number in taken))
    return steps


@pytest.mark.parametrize("num_rows", [1, 7, 22, 23, 64])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (2, 2), (4, 1), (3, 4)])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("is_grouped", [False, True])
def test_samples_per_step_are_those_that_the_sampler_deals(
    num_rows: int, num_processes: int, batch_size: int, accumulation: int, drop_last: bool, is_grouped: bool
) -> None:
    dealing = Dealing(num_rows, num_processes, batch_size, accumulation, drop_last, is_grouped)
    epoch = deal(dealing)
    assert dealing.samples_per_step(2 * len(epoch)) == epoch * 2


def test_rows_grouped_by_length_are_all_dealt_where_the_last_batch_is_not_full() -> None:
    assert Dealing(23, 2, 4, 1, False, False).samples_of_an_epoch() == [8, 8, 6]
    assert Dealing(23, 2, 4, 1, False, True).samples_of_an_epoch() == [8, 8, 7]


def test_training_may_end_within_an_epoch() -> None:
    assert Dealing(22, 1, 2, 2, False, False).samples_per_step(8) == [4, 4, 4, 4, 4, 2, 4, 4]


def test_too_few_rows_make_no_step() -> None:
    assert Dealing(2, 3, 1, 1, False, True).samples_of_an_epoch() == []
    assert Dealing(7, 2, 4, 1, True, False).samples_per_step(5) == []


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
