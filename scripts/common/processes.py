"""Processes of this machine: identity, life and signals."""

import ctypes
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from scripts.common.errors import UserError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start_time_of(pid: int) -> str | None:
    """When a process of this machine started (kernel ticks), or None when there is none; distinguishes a reused pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces
    return None if fields[0] in "ZX" else fields[19]


def this_process() -> dict[str, Any]:
    """Identity of this process, by which `is_alive` finds it."""
    return {**_where(), "pid": os.getpid(), "start_time": start_time_of(os.getpid())}


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether a process described by `this_process` lives; assumed of one on another machine or in another container."""
    if any(process.get(name, value) != value for name, value in _where().items()):
        return True
    return start_time_of(process["pid"]) == process["start_time"]


def _where() -> dict[str, str]:
    """What process numbers belong to."""
    return {"host": socket.gethostname(), "pid_namespace": str(Path("/proc/self/ns/pid").readlink())}


def die_with_parent(signal_number: int, parent_pid: int) -> None:
    """Asks the kernel to send this process a signal when its parent ends; ends it at once where the parent was faster."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def described(holder: Mapping[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP end the block through its `finally` blocks; later signals do not interrupt them."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise UserError(f"ended by {signal.Signals(number).name}; run the same command again")

    before = {each: signal.signal(each, stop) for each in STOP_SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
