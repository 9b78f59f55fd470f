"""One way to fail: a message that says what was found, what was expected and what to do, and exit status 1."""

import errno
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from scripts.common.disk_space import NO_ROOM_ERRORS

# What stands at a path is not what a program expects there: the user's doing, unlike a file that is missing.
OTHER_FILE_ERRORS = frozenset({
    errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST,
})  # fmt: skip


class UserError(Exception):
    """An error that the user can remove. The message names the file or key, what was found, what was expected and what to do."""


def run_program(main: Callable[[], None]) -> None:
    """Runs `main`; a `UserError` becomes one line on stderr and exit status 1, anything else keeps its traceback.

    A full disk can be met by any write, and a directory in a file's place by any read, so they get their messages here.
    """
    try:
        main()
    except UserError as error:
        _end(str(error))
    except OSError as error:
        if error.errno in NO_ROOM_ERRORS:
            _end(no_room_message(error))
        if error.errno in OTHER_FILE_ERRORS and error.filename:
            _end(
                f"{error.filename}: {error.strerror}; expected a file or directory of this program's there; see what is there"
            )
        raise


def _end(message: str) -> NoReturn:
    from scripts.common.terminal_text import shown  # not before the surroundings of this program are right

    print(f"error: {shown(message)}", file=sys.stderr)
    sys.exit(1)


def no_room_message(error: OSError) -> str:
    """The file that could not be written (or the line that wrote, where the system does not name the file), and what to do."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = error.filename or f"a file that {last.filename}:{last.lineno} ({last.name}) was writing"
    return f"{where}: {error.strerror}; make room, or raise the quota, then give the same command again"
