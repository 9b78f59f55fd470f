"""Progress of a loop: a line now and then, not one for each of its steps."""

import time

from scripts.common.logger import log


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
