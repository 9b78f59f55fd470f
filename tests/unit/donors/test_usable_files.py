"""The trial of a donor's files in a process of its own; what it finds is tested in tests/model/test_usable_files.py."""

from pathlib import Path

import pytest

from scripts.donors import usable_files


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("import time; time.sleep(3600)", "has not ended within 1 s"),
        ("raise SystemExit('no such class')", "no such class"),
        ("import os; os.kill(os.getpid(), 9)", "it said nothing"),
    ],
)
def test_a_trial_that_hangs_or_dies_is_a_fault_of_the_donor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, words: str
) -> None:
    monkeypatch.setattr(usable_files, "_CALL", call)
    monkeypatch.setattr(usable_files, "MAX_WAIT_S", 1)
    (fault,) = usable_files.usability_faults(tmp_path, "llm", 8)
    assert fault.startswith(f"{tmp_path}: transformers ")
    assert words in fault
