"""A program owns what it makes: nobody else writes it meanwhile, and the program ends with the run that wanted it.

Programs live on when their Snakemake is killed, and could overwrite what a later run has made. So each locks its outputs, its
children inherit the locks, and a program of a run that is gone ends. Another one that wants the outputs waits and says for whom.
The next run waits for jobs of Slurm, which do not end with the run that submitted them (scripts/workflow/one_run.py).
"""

import errno
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from scripts.common.errors import UserError
from scripts.common.files import read_if_whole, remove_leftovers
from scripts.common.locks import lock_or_wait, pids_with_open
from scripts.common.logger import log
from scripts.common.processes import described, ending_on_signals, is_alive, this_process

RUN_VARIABLE = "VLGRAFT_RUN"  # names the Snakemake that starts programs on this machine
_SECONDS_BETWEEN_LOOKS = 0.5
_MAX_NUM_TRIES = 1000  # in a directory that is gone, each try finds it gone


def announce_run() -> None:
    """Makes the programs that this process starts end with it."""
    os.environ[RUN_VARIABLE] = json.dumps(this_process())


def forget_run() -> None:
    """Makes the programs that this process starts independent of the run that started it: a job of Slurm."""
    os.environ.pop(RUN_VARIABLE, None)


@contextmanager
def owned(
    *outputs: Path, inputs: Collection[Path] = (), should_stop: Callable[[], bool] | None = None
) -> Iterator[None]:
    """Keeps files or directories to this program while the block makes them; waits for a program that owns them already.

    Signals end the block through its `finally` blocks; a program that stops in its own way gives `should_stop`, which ends the
    waiting. Raises UserError then, when its run is gone, and for an output that is also an input.
    """
    places = [Path(os.path.realpath(path)) for path in outputs]
    for path, place in zip(outputs, places, strict=True):
        if path.name in ("", "..") or (path.exists() and not (path.is_file() or path.is_dir())):
            raise UserError(
                f"{str(path)!r}: found as an output, and is none; expected the path of a file or directory, or of nothing; name "
                "one, or remove what is there"
            )
        for each in filter(Path.exists, inputs):  # with all that is in a directory
            if each.resolve() in place.parents or (path.exists() and path.samefile(each)):
                raise UserError(f"{path}: found as an input and as an output; expected another output; name one")
        if places.count(place) > 1 or {*places} & {*place.parents}:
            raise UserError(
                f"{path}: found as two outputs, or within one; expected a place of its own; name another one"
            )
    with ExitStack() as stack:
        if should_stop is None:
            stack.enter_context(ending_on_signals())
        _end_with_run()
        for path in sorted(outputs):  # in one order, so that two programs never wait for each other
            stack.enter_context(locked(path, should_stop or (lambda: False)))
        yield


@contextmanager
def locked(output: Path, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """The lock of one output alone, for what a program that owns its outputs keeps beside them."""
    path = output.with_name(f".{output.name}.lock")
    is_new_directory = not path.parent.exists()
    with _take(path, output, should_stop) as file:
        file.truncate(0)
        file.write(json.dumps(this_process() | {"program": sys.argv[0]}))
        file.flush()
        remove_leftovers(output)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock is free: who waits looks for the file again
            if is_new_directory:  # a program that failed leaves nothing
                with suppress(OSError):
                    path.parent.rmdir()


def _take(path: Path, output: Path, should_stop: Callable[[], bool]) -> IO[str]:
    """The lock's file, open and locked, and inherited by child processes."""
    try:
        for _ in range(_MAX_NUM_TRIES):
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # an owner has just removed the file, or the directory that was new
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW  # a link's target is nobody's lock
                file = open(os.open(path, flags, 0o666), "a+", encoding="utf-8")  # noqa: SIM115 - the caller closes it
                try:
                    lock_or_wait(file, fcntl.LOCK_EX, output, lambda: _holder(path), should_stop)
                    if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                        os.set_inheritable(file.fileno(), True)
                        return file
                except BaseException:
                    file.close()
                    raise
                file.close()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        raise UserError(
            f"{output}: cannot write there ({error.strerror or error}), see {path.name}; expected a writable directory, and no "
            "link or directory of that name; remove it, name another place, or let its owner give write permission"
        ) from None


def _holder(path: Path) -> str:
    """Who has the lock: its owner or, when that has been killed, the children that it left."""
    owner: Mapping[str, Any] = read_if_whole(path)
    if owner and is_alive(owner):
        return f"{described(owner)} ({owner.get('program', 'unknown program')})"
    left: list[int] = []
    with suppress(FileNotFoundError):
        left = pids_with_open(path)
    return f"what is left of a killed program (process {', '.join(map(str, left))})" if left else "another program"


def _end_with_run() -> None:
    """Ends this program when the Snakemake that started it is gone; by hand there is none."""
    text = os.environ.get(RUN_VARIABLE)
    if text is None:
        return
    run = json.loads(text)
    gone = f"the Snakemake that started this ({described(run)}) is gone"
    if not is_alive(run):
        raise UserError(f"{gone}; nothing was begun; give Snakemake's command again")

    def watch() -> None:
        while is_alive(run):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        log(f"{gone}; ending, so that another run can begin")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
