"""Child processes that always end: with the block that started them, on a signal, and when this process is killed."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from common.errors import UserError
from common.process_group import STOP_SIGNALS, die_with_parent

# How long a process group has to end by itself after SIGTERM; vLLM needs up to 6 s.
GRACE_S = 15.0


def end_on_signals() -> None:
    """Makes SIGTERM, SIGINT and SIGHUP end the program through its `finally` blocks; later signals cannot cut them off."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise UserError(f"ended by {signal.Signals(number).name}; run the same command again")

    for each in STOP_SIGNALS:
        signal.signal(each, stop)


def _dies_with(parent_pid: int) -> Callable[[], None]:
    """Runs in the child between fork and exec: a killed parent takes the child with it."""

    def prepare() -> None:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before the line above
            os._exit(1)

    return prepare


@contextlib.contextmanager
def process_group(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, log_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, its output in `log_path`; leaving the block ends the whole group."""
    with open(log_path, "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            preexec_fn=_dies_with(os.getpid()),
        )
    try:
        yield process
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the group, SIGKILL to what is left of it; a signal to this process waits until that is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                deadline = time.monotonic() + GRACE_S
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
