"""One way to fail: a message that says what was found, what was expected and what to do, and exit status 1."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that the user can mend. The message names the file or key, the finding, the expectation, the remedy."""


def run_program(main: Callable[[], None]) -> None:
    """Runs `main`; a `UserError` becomes one line on stderr and exit status 1, anything else keeps its traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
