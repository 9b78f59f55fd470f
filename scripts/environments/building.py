"""Builds an environment beside the one in use; its name points to the new one only when that is whole.

`.venvs/train` is a link to a directory whose name holds the sha256 of its lock, `.venvs/train-307062cf2b01`. A build makes
another directory, under a lock of the kernel, and then replaces the link. What runs in the old directory goes on in it,
because of the module that Python loads at its start (scripts/environments/python_start.py). Whether an old directory is still
used, on whatever machine, cannot be known here; so it stays, and the build says what may be removed.

Nothing but the standard library is imported, because the workflow's own environment is built with this, too.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file, write_text_atomically
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.processes import die_with_parent
from scripts.common.root import ROOT
from scripts.environments.marker import is_of, marker_text, sums_in

# In the directory of an environment that is whole: its marker, and the lock file that it was built from.
WHOLE_NAME = "ok"
ORIGIN_NAME = "built-from"

_START_NAME = "_vlgraft_start"
_START_PATH = Path(__file__).with_name("python_start.py")

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Place:
    """Where an environment lies: `link` is its name, `store_dir/NAME-…` the directories that it may point to."""

    link: Path
    store_dir: Path
    name: str
    lock_paths: Sequence[Path]
    marker_path: Path

    @property
    def has_marker_inside(self) -> bool:
        return self.marker_path.parent == self.link

    @property
    def is_current(self) -> bool:
        return is_of(self.marker_path, self.lock_paths) and (self.link / "bin/python").exists()

    @property
    def directories(self) -> list[Path]:
        """All that builds have made, whole or not."""
        pattern = re.compile(re.escape(self.name) + r"-[0-9a-f]{12}(-\d+)?")
        found = self.store_dir.glob(f"{self.name}-*")
        return sorted(path for path in found if pattern.fullmatch(path.name) and not path.is_symlink())


@dataclass(frozen=True)
class Build:
    """A build at work: `directory` is filled by commands, which hold the lock of the place while they live."""

    directory: Path
    lock_path: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin/python"

    def run(self, command: Sequence[str | Path], variables: Mapping[str, str], advice: str) -> None:
        """Runs one command. Raises UserError naming it when it fails."""
        words = list(map(str, command))
        log(f"+ {' '.join(words)}")
        builder_pid = os.getpid()
        status = subprocess.run(
            words,
            check=False,
            env={**os.environ, **variables},
            close_fds=False,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL, builder_pid),
        ).returncode
        if status != 0:
            raise UserError(
                f"{self.lock_path}: `{' '.join(words)}` ended with status {status}; its output is above; {advice}, "
                "then run the same command again"
            )


def _check_writable(place: Place) -> None:
    existing = next(path for path in (place.store_dir, *place.store_dir.resolve().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"{place.store_dir}: cannot be written, and its {place.name} is not of {place.lock_paths[0]}; ask its owner to "
            "build it from this lock, or, where it is a link, remove the link to have environments of your own"
        )


def _check_other_checkouts(place: Place) -> None:
    """Raises UserError when the environment is what another checkout with the same `.venvs` wants."""
    with contextlib.suppress(OSError):
        origin = Path((place.link / ORIGIN_NAME).read_text(encoding="utf-8").strip())
        checkout_dir = origin.parent.parent
        is_of_other = checkout_dir != ROOT and (checkout_dir / "scripts/environments").is_dir()
        if is_of_other and sums_in(place.marker_path)[:1] == [sha256_of_file(origin)]:
            raise UserError(
                f"{place.link}: built from {origin}, which {place.lock_paths[0]} differs from; a build would take the "
                "environment away from that checkout; use the same lock in both, or environments of your own (remove the link "
                f"{place.store_dir})"
            )


def _new_directory(place: Place) -> Path:
    first = place.store_dir / f"{place.name}-{sha256_of_file(place.lock_paths[0])[:12]}"
    path, number = first, 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    path.mkdir(parents=True)
    return path


def users_of(directory: Path) -> list[str]:
    """Processes of this machine that have files of a directory loaded, as far as this user may look."""
    prefix = f"{directory.resolve()}/"
    users = []
    for process_dir in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if prefix in (process_dir / "maps").read_text(errors="replace"):
                words = (process_dir / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                users.append(f"process {process_dir.name} ({words.strip()[:100]})")
    return users


def _move_aside(place: Place) -> None:
    """Makes way for the link where an earlier version has built the environment itself under this name."""
    if place.link.is_symlink() or not place.link.exists():
        return
    said: list[str] = []
    while users := users_of(place.link):
        if users != said:
            log(f"{place.link}: whole beside it, but waiting for {', '.join(users)}, which may still read it")
            said = users
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    aside, number = place.store_dir / f"{place.name}-old", 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{place.name}-old-{number}")
    place.link.rename(aside)
    log(f"{aside}: the environment so far; remove it when nothing uses it: rm -r {aside}")


def _point_to(place: Place, directory: Path) -> None:
    temporary = place.link.with_name(f".{place.link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(directory.resolve(), place.link.parent.resolve()))
    os.replace(temporary, place.link)


def _add_start(directory: Path) -> None:
    for packages_dir in directory.glob("lib/python3.*/site-packages"):
        shutil.copyfile(_START_PATH, packages_dir / f"{_START_NAME}.py")
        (packages_dir / f"{_START_NAME}.pth").write_text(f"import {_START_NAME}\n", encoding="utf-8")


def build_beside(place: Place, install: Callable[[Build], None]) -> None:
    """Has `install` fill a directory, and gives it the environment's name; one of the same locks is left alone.

    Raises UserError where nothing could be built; the environment so far is then as it was.
    """
    for path in place.lock_paths:
        if not path.exists():
            raise UserError(f"{path}: not found; expected the hashed lock of this environment; restore it with git")
    if place.is_current:
        log(f"{place.link}: of this lock already, left alone")
        return
    _check_writable(place)
    with owned(place.link):
        if place.is_current:
            log(f"{place.link}: built meanwhile by another process, left alone")
            return
        _check_other_checkouts(place)
        for left_over in place.directories:
            if not (left_over / WHOLE_NAME).exists():  # of a build that was killed
                shutil.rmtree(left_over)
        directory = _new_directory(place)
        try:
            install(Build(directory, place.lock_paths[0]))
            _add_start(directory)
            text = marker_text(place.lock_paths)
            write_text_atomically(directory / ORIGIN_NAME, f"{place.lock_paths[0].resolve()}\n")
            write_text_atomically(directory / WHOLE_NAME, text)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        _move_aside(place)
        if not place.has_marker_inside:
            place.marker_path.unlink(missing_ok=True)
        _point_to(place, directory)
        if not place.has_marker_inside:
            write_text_atomically(place.marker_path, text)
        for old in place.directories:
            if old != directory:
                log(f"{old}: no longer used by new jobs; remove it when nothing runs in it: rm -r {old}")
