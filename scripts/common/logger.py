"""Progress of a program: one line on stderr."""

import sys
import time
from contextlib import suppress

from scripts.common.secret_values import without_tokens


def log(line: str) -> None:
    """Prints one line on stderr. A closed terminal is ignored, so that it does not end a training."""
    with suppress(OSError):
        print(without_tokens(line), file=sys.stderr, flush=True)


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
