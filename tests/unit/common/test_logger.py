"""Progress is logged now and then, not at each step of a loop; no line shows a password."""

import time
from pathlib import Path

import pytest

from scripts.common.logger import OccasionalLog, make_logger


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


def test_a_password_in_a_line_is_hidden_on_the_terminal_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_logger(tmp_path / "a.log")("no answer through http://me:pw@proxy:3128")
    assert capsys.readouterr().err == "no answer through http://(secret)@proxy:3128\n"
    assert (tmp_path / "a.log").read_text().endswith("no answer through http://(secret)@proxy:3128\n")
