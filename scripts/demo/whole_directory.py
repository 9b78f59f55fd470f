"""Output directories that are either whole or absent."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import fsync_directory
from scripts.common.ownership import owned


@contextmanager
def whole_directory(output_dir: Path, own_names: Collection[str]) -> Iterator[Path]:
    """Gives a temporary directory to fill; at the end it takes the place of `output_dir`, on an error it vanishes.

    `output_dir` may hold files named in `own_names` (glob patterns), which are an earlier result and are replaced;
    anything else in it is the user's, and the program stops before it makes anything.
    """
    strangers = [
        path
        for path in sorted(output_dir.iterdir() if output_dir.exists() else [])
        if not any(path.match(pattern) for pattern in own_names)
    ]
    if strangers:
        raise UserError(
            f"{strangers[0]}: not made by this program; expected an empty or absent directory, or an earlier result; "
            "move it away or choose another directory"
        )
    temporary, old = (output_dir.with_name(f".{output_dir.name}.{ending}") for ending in ("tmp", "old"))
    with owned(output_dir):
        for leftover in (temporary, old):  # of a killed run
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if output_dir.exists():
                output_dir.rename(old)  # in one step: a kill leaves no part of it under its name
            temporary.rename(output_dir)
            fsync_directory(output_dir.parent)
        finally:
            for leftover in (temporary, old):
                shutil.rmtree(leftover, ignore_errors=True)
