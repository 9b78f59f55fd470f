"""Children end with the block that started them: the whole group, willing or not."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from helpers.processes import LIMIT_S, is_running, wait_for
from scripts.common.locks import pids_with_open
from scripts.common.ownership import owned
from scripts.serve import child_processes
from scripts.serve.child_processes import process_group

GRANDCHILD = (
    "import subprocess, time; subprocess.Popen(['sleep', '3600']); print('started', flush=True); time.sleep(3600)"
)
UNWILLING = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('started', flush=True); time.sleep(3600)"
)


def ended_after_block(code: str, directory: Path) -> list[psutil.Process]:
    """Starts a program, waits until it says so, leaves the block; the processes that there were."""
    log_path = directory / "log"
    with process_group([sys.executable, "-c", code], os.environ, directory, log_path) as process:
        wait_for(lambda: "started" in log_path.read_text())
        leader = psutil.Process(process.pid)
        return [leader, *leader.children(recursive=True)]


def test_a_child_of_a_child_ends_with_the_block(tmp_path: Path) -> None:
    processes = ended_after_block(GRANDCHILD, tmp_path)
    assert len(processes) == 2
    _, alive = psutil.wait_procs(processes, timeout=LIMIT_S)
    assert alive == []


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_processes, "GRACE_S", 0.2)
    (process,) = ended_after_block(UNWILLING, tmp_path)
    is_left = process.is_running()
    if is_left:
        process.kill()
    assert not is_left


def test_an_error_in_the_block_ends_the_child_too(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        process_group([sys.executable, "-c", GRANDCHILD], os.environ, tmp_path, tmp_path / "log") as process,
    ):
        1 / 0  # noqa: B018
    assert process.returncode is not None


def test_a_child_inherits_the_locks_of_the_outputs(tmp_path: Path) -> None:
    with (
        owned(tmp_path / "output"),
        process_group([sys.executable, "-c", GRANDCHILD], os.environ, tmp_path, tmp_path / "log") as process,
    ):
        assert process.pid in pids_with_open(tmp_path / ".output.lock")


def test_a_killed_parent_takes_the_children_of_its_child_along(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, time\n"
        "from scripts.serve.child_processes import process_group\n"
        f"directory = pathlib.Path({str(tmp_path)!r})\n"
        f"with process_group([sys.executable, '-c', {GRANDCHILD!r}], os.environ, directory, directory / 'log'):\n"
        "    time.sleep(3600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with psutil.Popen([sys.executable, "-c", code], env=environment) as parent:
        wait_for(lambda: (tmp_path / "log").exists() and "started" in (tmp_path / "log").read_text())
        processes = parent.children(recursive=True)
        parent.kill()
    assert len(processes) == 3  # the guard, the child and its own
    wait_for(lambda: not any(is_running(process.pid) for process in processes))


def test_the_block_waits_for_a_child_of_a_child_that_has_something_to_give_back(tmp_path: Path) -> None:
    slow = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), open('given', 'w'), sys.exit()))"
    slow += "; print('started', flush=True); time.sleep(3600)"
    ended_after_block(
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {slow!r}]); time.sleep(3600)", tmp_path
    )
    assert (tmp_path / "given").exists()
