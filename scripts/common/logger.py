"""Progress of a program: one line on stderr."""

import sys
from contextlib import suppress

from scripts.common.terminal_text import shown


def log(line: str) -> None:
    """Prints one line on stderr. A closed terminal is ignored, so that it does not end a training."""
    with suppress(OSError):
        print(shown(line), file=sys.stderr, flush=True)
