"""Locks that the kernel holds: free as soon as the last process that has them open has ended, however it ended."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from scripts.common.errors import UserError
from scripts.common.logger import log

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_TRIES = 0.2


def try_lock(file: IO[str], kind: int) -> bool:
    """Takes a lock without waiting; raises UserError where the file system has none."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"{file.name}: this file system cannot lock files ({error.strerror}); two programs could write the same files; "
            "put the results and work directories elsewhere"
        ) from None
    return True


def lock_or_wait(
    file: IO[str], kind: int, what: Path, describe_holders: Callable[[], str], should_stop: Callable[[], bool]
) -> None:
    """Takes the lock of `what`; while another process holds it, logs which one every few seconds."""
    next_line_s = 0.0
    while not try_lock(file, kind):
        if time.monotonic() >= next_line_s:
            log(f"{what}: in use by {describe_holders()}; waiting for it to end")
            next_line_s = time.monotonic() + _SECONDS_BETWEEN_LINES
        if should_stop():
            raise UserError(f"{what}: stopped while waiting for {describe_holders()}; run the same command again")
        time.sleep(_SECONDS_BETWEEN_TRIES)


def pids_with_open(path: Path) -> list[int]:
    """Processes of this machine that have a file open, as far as this user may see: those that can hold its lock."""
    target = path.stat()
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):  # a process that ends meanwhile, or another user's, has none
        with contextlib.suppress(OSError):
            if os.path.samestat(descriptor.stat(), target):
                found.add(int(descriptor.parts[2]))
    return sorted(found - {os.getpid()})
