"""What launcher and callback write for each other is read as it was written, and half a file is none."""

import json
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.train.watch_files import (
    Begin,
    Failure,
    Progress,
    WatchDir,
    read_begin,
    read_first_failure,
    read_progress,
    write_begin,
    write_failure,
    write_progress,
)

BEGIN = Begin(
    first_step=0,
    max_steps=2,
    num_processes=1,
    num_parameters={"aligner": 5},
    num_trainable_parameters={"aligner": 5},
    checkpoint_bytes=60,
    trainable=["model.visual.merger.mlp.0.weight"],
    samples_per_step=[4, 2],
)


@pytest.fixture
def watch(tmp_path: Path) -> WatchDir:
    return WatchDir(tmp_path)


def test_the_beginning_is_read_as_it_was_written(watch: WatchDir) -> None:
    write_begin(watch, BEGIN)
    assert read_begin(watch) == BEGIN


def test_a_beginning_that_lacks_something_names_file_and_key(watch: WatchDir) -> None:
    write_begin(watch, BEGIN)
    value = json.loads(watch.begin.read_text())
    del value["samples_per_step"]
    watch.begin.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"begin\.json: samples_per_step: missing"):
        read_begin(watch)


def test_progress_has_only_what_is_known_yet(watch: WatchDir) -> None:
    assert read_progress(watch) is None
    write_progress(watch, Progress("training", step=1, max_steps=2, num_samples=0))
    assert json.loads(watch.progress.read_text()) == {"phase": "training", "step": 1, "max_steps": 2, "num_samples": 0}
    assert read_progress(watch) == Progress("training", step=1, max_steps=2, num_samples=0, loss=None)
    watch.progress.write_text('{"phase": "trai')
    assert read_progress(watch) is None


def test_of_several_failures_the_first_in_time_counts(watch: WatchDir) -> None:
    assert read_first_failure(watch) is None
    for rank, time_s in ((0, 6.0), (1, 5.0), (2, 7.0)):
        write_failure(watch, Failure(rank, f"rank {rank}", is_user_error=False, time_s=time_s))
    assert read_first_failure(watch) == Failure(1, "rank 1", is_user_error=False, time_s=5.0)


def test_a_new_start_keeps_only_the_records_of_steps(watch: WatchDir) -> None:
    write_begin(watch, BEGIN)
    write_progress(watch, Progress("training", step=1, max_steps=2))
    write_failure(watch, Failure(0, "broken", is_user_error=True, time_s=1.0))
    for path in (watch.stop, watch.rank(0), watch.steps(0)):
        path.write_text("")
    watch.clear()
    assert [path.name for path in watch.path.iterdir()] == ["steps-rank0.jsonl"]
