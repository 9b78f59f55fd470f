"""How a process ended, in words: `signal 24` says nothing to somebody whose login shell has a limit of processor time."""

import re
import signal
from collections.abc import Iterable

_MEANINGS = {
    signal.SIGKILL: "from outside, mostly because memory ran out",
    signal.SIGXCPU: "a limit of processor time, as of `ulimit -t` in the shell that started this",
    signal.SIGXFSZ: "a limit of the size of files, as of `ulimit -f`",
    signal.SIGBUS: "often no room left in /dev/shm",
    signal.SIGSEGV: "a fault of a library, or a limit of the stack, as of `ulimit -s`",
}

# As torchrun reports a rank that a signal ended (torch/distributed/elastic/multiprocessing/errors: ChildFailedError).
_RANK_ENDED = re.compile(r"exitcode\s*:\s*-(\d+)")


def ending(exit_code: int) -> str:
    """An exit status, or by which signal a process was ended (negative, as Python has it) and what that may mean."""
    if exit_code >= 0:
        return f"exit status {exit_code}"
    meaning = {int(number): f" ({number.name}: {text})" for number, text in _MEANINGS.items()}.get(-exit_code, "")
    return f"signal {-exit_code}{meaning}"


def rank_ending(lines: Iterable[str]) -> str | None:
    """The same of the first rank that torchrun's output says was ended by a signal."""
    found = next(filter(None, map(_RANK_ENDED.search, lines)), None)
    return ending(-int(found.group(1))) if found else None
