"""The log of an evaluation: each line on stderr and, with the time, in a file."""

import time
from collections.abc import Callable
from pathlib import Path

from scripts.common.logger import log
from scripts.common.secret_values import without_tokens

Log = Callable[[str], None]


def make_logger(log_path: Path) -> Log:
    """Begins a log file and returns a function that logs a line on stderr and, with the time, in that file."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    log_path.write_text("", encoding="utf-8")

    def log_line(line: str) -> None:
        log(line)
        with open(log_path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {without_tokens(line)}\n")

    return log_line
