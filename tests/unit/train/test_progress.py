"""The lines that the launcher logs while it waits."""

import time
from pathlib import Path

import pytest

from scripts.train.progress import ProgressLog
from scripts.train.tensor_changes import GROUPS
from scripts.train.watch_files import Begin, Progress, WatchDir, write_begin, write_progress


def test_progress_shows_step_loss_speed_and_time_left_of_this_start_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    watch = WatchDir(tmp_path)
    progress = ProgressLog("stage1", watch)
    now_s += 6.0
    progress.update()
    assert capsys.readouterr().err == "stage1: ms-swift is starting (6 s)\n"

    begin = Begin(
        first_step=100,
        max_steps=200,
        num_processes=1,
        num_parameters=dict.fromkeys(GROUPS, 1000),
        num_trainable_parameters={"vision_tower": 0, "aligner": 1000, "language_model": 0},
        checkpoint_bytes=36_050_000_000,
        trainable=[],
        samples_per_step=[],
    )
    write_begin(watch, begin)
    progress.update()
    logged = capsys.readouterr().err
    assert "each checkpoint takes at least 36.05 GB on the disk" in logged
    assert "[TRAINABLE] aligner: 1,000 of 1,000 parameters train" in logged
    assert "[FROZEN]    language_model: 0 of 1,000 parameters train" in logged

    write_progress(watch, Progress("training", step=120, max_steps=200, num_samples=640, loss=0.5))
    now_s += 10.0
    progress.update()
    assert capsys.readouterr().err == "stage1: training, step 120/200, loss 0.5000, 64.0 samples/s, about 40 s left\n"
