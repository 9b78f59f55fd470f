"""Child processes that end with the block that started them, on a signal, and when this process is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from scripts.common.processes import STOP_SIGNALS, die_with_parent

# Reads the number of a process group from stdin, and kills that group when stdin is closed.
_GUARD = "import os, signal, sys; group = int(input()); sys.stdin.read(); os.killpg(group, signal.SIGKILL)"

# Time for a process group to end by itself after SIGTERM; vLLM needs up to 6 s.
GRACE_S = 15.0


def _dies_with(parent_pid: int) -> Callable[[], None]:
    """Runs in the child between fork and exec, so that the child dies with its parent."""
    return lambda: die_with_parent(signal.SIGKILL, parent_pid)


@contextlib.contextmanager
def _guard() -> Iterator[IO[bytes]]:
    """A helper process that kills the group written to it when this process is killed.

    The kernel kills a child with its parent (`_dies_with`), but not the child's own children: vLLM's engine would live on and
    keep the memory of its GPU.
    """
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert guard.stdin
    try:
        yield guard.stdin
    finally:
        guard.kill()
        guard.wait()
        guard.stdin.close()


@contextlib.contextmanager
def process_group(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, log_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, its output in `log_path`; leaving the block ends the whole group."""
    with _guard() as guard:
        with open(log_path, "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
                close_fds=False,  # it inherits the locks of the outputs (scripts/common/ownership.py), and nothing else
                preexec_fn=_dies_with(os.getpid()),
            )
        try:
            guard.write(f"{process.pid}\n".encode())
            guard.flush()
            yield process
        finally:
            end_group(process)


def _lives(group: int) -> bool:
    """Whether the group has a process that is no zombie."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the group, SIGKILL to what is left of it; a signal to this process waits until that is done.

    All processes are waited for, not only the first: vLLM's others release their shared memory only when they end by themselves.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                deadline = time.monotonic() + GRACE_S
                while (process.poll() is None or _lives(process.pid)) and time.monotonic() < deadline:
                    time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
