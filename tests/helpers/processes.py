"""What tests ask of processes, and how long they wait for anything."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# How long a test waits for anything that has to come. Only what is broken takes so long, on however busy a machine.
LIMIT_S = 900.0


def wait_for(sign: Callable[[], Any], what: str | Callable[[], str] = "what was waited for") -> Any:
    """What `sign` gives as soon as that is true; fails the test with `what` where it never is."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := sign()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what if isinstance(what, str) else what()}: not within {LIMIT_S:.0f} s")
        time.sleep(0.02)
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
