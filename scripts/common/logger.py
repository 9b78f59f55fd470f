"""Progress of a program: one line on stderr."""

import sys
from contextlib import suppress

from scripts.common.secret_values import without_tokens


def log(line: str) -> None:
    """Prints one line on stderr. A closed terminal is ignored, so that it does not end a training."""
    with suppress(OSError):
        print(without_tokens(line), file=sys.stderr, flush=True)
