"""Progress is logged now and then, not at each step of a loop."""

import time

import pytest

from scripts.data.occasional_log import OccasionalLog


def test_progress_is_one_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    progress = OccasionalLog(seconds_between_lines=10.0)
    for number in range(25):
        progress(f"{number} read")
        now_s += 1.0
    assert capsys.readouterr().err == "10 read\n20 read\n"
