"""What Python does first in our environments, in a Python that has not done it (`-S`)."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.other_machines import NAMELESS_UID, by_nameless_user

SHOW = "import json, os, runpy, sys, warnings; runpy.run_path(sys.argv[1], run_name='_vlgraft_start'); \
print(json.dumps({**os.environ, 'filters': [each[0] for each in warnings.filters]}))"


def after_start(
    root: Path, directory: Path, variables: Mapping[str, str], before: Sequence[str] = ()
) -> dict[str, str]:
    command = [*before, sys.executable, "-S", "-c", SHOW, str(root / "scripts/environments/python_start.py")]
    environment = {"PATH": os.environ["PATH"], **variables}
    finished = subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(finished.stdout))


def test_a_user_id_without_a_name_and_a_home_gets_both(root: Path, tmp_path: Path) -> None:
    found = after_start(root, tmp_path, {}, by_nameless_user())
    assert (found["USER"], found["HOME"]) == (f"uid{NAMELESS_UID}", str(tmp_path / ".cache/home"))


def test_a_user_with_a_name_and_a_home_keeps_both(root: Path, tmp_path: Path) -> None:
    found = after_start(root, tmp_path, {"HOME": str(tmp_path), "USER": "somebody"})
    assert (found["USER"], found["HOME"]) == ("somebody", str(tmp_path))


def test_warnings_stay_warnings(root: Path, tmp_path: Path) -> None:
    found = after_start(root, tmp_path, {"HOME": str(tmp_path), "PYTHONWARNINGS": "error"})
    assert "PYTHONWARNINGS" not in found and "error" not in found["filters"]
