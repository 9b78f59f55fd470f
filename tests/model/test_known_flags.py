"""config/known_flags.json is what the installed ms-swift knows. Runs in the train environment."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("swift", reason="the train environment has it")


def test_the_known_flags_are_those_of_the_installed_ms_swift(root: Path, tmp_path: Path) -> None:
    made = tmp_path / "known_flags.json"
    command = [sys.executable, "scripts", "workflow.list_swift_flags", "--output", str(made)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    assert made.read_text() == (root / "config/known_flags.json").read_text(), (
        "run: .venvs/train/bin/python scripts workflow.list_swift_flags --output config/known_flags.json"
    )
