"""Processes of this machine: identity, life, signals and locks."""

import ctypes
import fcntl
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

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
    return {"pid": os.getpid(), "host": socket.gethostname(), "start_time": start_time_of(os.getpid())}


def is_alive(process: Mapping[str, Any]) -> bool:
    """Whether a process described by `this_process` lives; assumed of one on another machine."""
    if process["host"] != socket.gethostname():
        return True
    return start_time_of(process["pid"]) == process["start_time"]


def die_with_parent(signal_number: int) -> None:
    """Asks the kernel to send this process a signal when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def try_lock(file: IO[str], kind: int) -> bool:
    """Takes a lock without waiting; raises UserError where the file system has none."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{file.name}: this file system cannot lock files ({error.strerror}); "
            "two trainers could write the same checkpoints; put the work directory elsewhere"
        ) from None
    return True


def described(holder: Mapping[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
