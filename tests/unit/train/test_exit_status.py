"""How a process ended, in words."""

import signal
import subprocess
import sys

import pytest

from scripts.train.exit_status import ending, rank_ending


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-signal.SIGKILL, "signal 9 (SIGKILL: from outside, mostly because memory ran out)"),
        (-signal.SIGBUS, "signal 7 (SIGBUS: often no room left in /dev/shm)"),
    ],
)
def test_a_signal_has_its_name_and_what_it_may_mean(exit_code: int, expected: str) -> None:
    assert ending(exit_code) == expected


def test_a_limit_of_processor_time_is_named() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 60))\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert "ulimit -t" in ending(ended.returncode)


def test_a_rank_that_a_signal_ended_is_found_in_torchruns_words() -> None:
    lines = [
        "Root Cause (first observed failure):",
        "  rank      : 1",
        "  exitcode  : -24 (pid: 7)",
        "  exitcode  : -15 (pid: 8)",
    ]
    found = rank_ending(lines)
    assert found is not None and found.startswith("signal 24 (SIGXCPU: a limit of processor time")
    assert rank_ending(["exitcode  : 1 (pid: 7)"]) is None
