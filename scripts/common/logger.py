"""Progress of a program: one line on stderr, and in a log file where there is one."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Log = Callable[[str], None]


def log(line: str) -> None:
    """Prints one line on stderr. A closed terminal is ignored, so that it does not end a training."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def make_logger(log_path: Path) -> Log:
    """Begins a log file and returns a function that logs a line on stderr and, with the time, in that file."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    log_path.write_text("", encoding="utf-8")

    def log_line(line: str) -> None:
        log(line)
        with open(log_path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    return log_line


class OccasionalLog:
    """Logs progress: at most one line every few seconds, the first after that time."""

    def __init__(self, seconds_between_lines: float = 10.0) -> None:
        self.seconds_between_lines = seconds_between_lines
        self.last_line_s = time.monotonic()

    def __call__(self, line: str) -> None:
        now_s = time.monotonic()
        if now_s - self.last_line_s >= self.seconds_between_lines:
            self.last_line_s = now_s
            log(line)
