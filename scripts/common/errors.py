"""One way to fail: a message that says what was found, what was expected and what to do, and exit status 1."""

import sys
import traceback
from collections.abc import Callable

from scripts.common.disk_space import NO_ROOM_ERRORS


class UserError(Exception):
    """An error that the user can remove. The message names the file or key, what was found, what was expected and what to do."""


def run_program(main: Callable[[], None]) -> None:
    """Runs `main`; a `UserError` becomes one line on stderr and exit status 1, anything else keeps its traceback.

    A full disk can be met by any write, so it gets its message here.
    """
    try:
        main()
    except UserError as error:
        from scripts.common.secret_values import without_tokens  # not before the surroundings of this program are right

        print(f"error: {without_tokens(str(error))}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in NO_ROOM_ERRORS:
            raise
        print(f"error: {no_room_message(error)}", file=sys.stderr)
        sys.exit(1)


def no_room_message(error: OSError) -> str:
    """The file that could not be written (or the line that wrote, where the system does not name the file), and what to do."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = error.filename or f"a file that {last.filename}:{last.lineno} ({last.name}) was writing"
    return f"{where}: {error.strerror}; make room, or raise the quota, then give the same command again"
