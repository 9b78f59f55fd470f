"""Starts a trainer that ends with its launcher, stops it in order, and keeps a work directory to one trainer at a time.

Two locks in a training's work directory. `launcher.lock` belongs to one launcher at a time. `ranks.lock` is shared by all
trainer processes (taken in scripts/train/rank.py), so it stays held when a launcher is killed and its trainer is still
finishing a step. A launcher needs both free, and waits for such trainers of other settings, too: they keep their GPUs. The
kernel releases the locks when the process that holds them ends.

How a trainer is stopped: the launcher writes the stop file; rank 0 looks for it after each step, and all ranks save and
end. Before the first step there is nothing to save, and the process is ended by a signal. A rank also stops by itself
when its launcher is gone, and on SIGTERM or SIGINT, which a cluster's scheduler sends to every process at once.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

from scripts.common.files import read_if_whole
from scripts.common.locks import lock_or_wait, try_lock
from scripts.common.processes import STOP_SIGNALS, described, die_with_parent, is_alive, this_process
from scripts.train.watch_files import WatchDir

LAUNCHER_LOCK_NAME = "launcher.lock"
RANKS_LOCK_NAME = "ranks.lock"

# One Ctrl-C can arrive more than once, from the terminal and from the workflow; a later one is another Ctrl-C.
_SAME_CTRL_C_S = 5.0


@contextmanager
def exclusive_work_dir(work_dir: Path, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Keeps a work directory to one launcher, and waits until no trainer of an earlier one is left."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / LAUNCHER_LOCK_NAME, "a+", encoding="utf-8") as lock:

        def holder() -> str:
            process = read_if_whole(work_dir / LAUNCHER_LOCK_NAME)
            return described(process) if process else "another process"

        lock_or_wait(lock, fcntl.LOCK_EX, work_dir, holder, should_stop)
        lock.truncate(0)
        lock.write(json.dumps(this_process()))
        lock.flush()
        for path in sorted(work_dir.parent.glob(f"*/{RANKS_LOCK_NAME}")):
            if path.parent == work_dir or not is_locked(path.with_name(LAUNCHER_LOCK_NAME)):
                wait_for_ranks(path.parent, should_stop)
        yield


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock, here or on another node."""
    try:
        with open(path, encoding="utf-8") as lock:
            return not try_lock(lock, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def wait_for_ranks(work_dir: Path, should_stop: Callable[[], bool]) -> None:
    """Returns when no trainer process is left in the work directory."""

    def holders() -> str:
        ranks = WatchDir(work_dir / "watch").processes()
        alive = [described(rank) for rank in ranks if is_alive(rank)]
        return "trainer " + ", ".join(alive) if alive else "a trainer"

    with open(work_dir / RANKS_LOCK_NAME, "a+", encoding="utf-8") as lock:
        lock_or_wait(lock, fcntl.LOCK_EX, work_dir, holders, should_stop)


class StopRequests:
    """Remembers SIGTERM, SIGINT and SIGHUP instead of dying of them. A second Ctrl-C, some seconds later, is urgent."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._first_s = 0.0
        self.is_urgent = False

    def __call__(self) -> bool:
        return bool(self.received)

    def _remember(self, signal_number: int, frame: FrameType | None) -> None:
        if not self.received:
            self._first_s = time.monotonic()
        elif signal_number == signal.SIGINT and time.monotonic() - self._first_s > _SAME_CTRL_C_S:
            self.is_urgent = True
        self.received.append(signal_number)

    @contextmanager
    def listening(self) -> Iterator["StopRequests"]:
        before = {number: signal.signal(number, self._remember) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Trainer:
    """A running trainer: one process, or torchrun with its ranks."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: IO[bytes], *, has_agent: bool) -> None:
        """`has_agent`: torchrun (or srun before it) stands between us and the ranks.

        An agent must outlive a signal sent to everybody, or it would kill its ranks in the middle of a checkpoint. It is
        ended by SIGUSR2, which scripts/train/command.py makes it handle. A single trainer handles SIGTERM itself, and gets
        it when this launcher dies.
        """
        self._has_agent = has_agent

        launcher_pid = os.getpid()

        def before_exec() -> None:
            if has_agent:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            else:
                die_with_parent(signal.SIGTERM, launcher_pid)

        self._process = subprocess.Popen(
            list(argv),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            close_fds=False,  # it inherits the locks of the outputs (scripts/common/ownership.py), and nothing else
            start_new_session=True,  # a terminal's Ctrl-C reaches the launcher alone
            preexec_fn=before_exec,
        )

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def end_before_training(self) -> None:
        """Ends a trainer that has not begun, and its helpers. One that has just begun saves, or loses its few steps."""
        if self._has_agent:
            self._process.send_signal(signal.SIGUSR2)
        else:
            os.killpg(self._process.pid, signal.SIGTERM)

    def kill(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        """Ends everything at once, also the ranks, which torchrun starts in sessions of their own."""
        own_ranks = [rank["pid"] for rank in ranks if rank["host"] == socket.gethostname() and is_alive(rank)]
        for pid in [self._process.pid, *own_ranks]:
            try:
                os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self._process.wait()
