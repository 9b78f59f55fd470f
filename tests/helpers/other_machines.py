"""Starts a program as on other people's machines, in namespaces of its own: nothing of this machine is changed."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

NAMELESS_UID = 4242

_MOUNT = 'mount -t tmpfs -o "$0" none "$1" && shift && exec "$@"'


def _checked(prefix: list[str]) -> list[str]:
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no namespaces for this user here: {tried.stderr.strip()}")
    return prefix


def by_nameless_user() -> list[str]:
    """Before a command: its user id has no name on this machine, and no home directory."""
    return _checked(["unshare", "--user", f"--map-user={NAMELESS_UID}", f"--map-group={NAMELESS_UID}"])


def with_mount(directory: Path | str, options: str) -> list[str]:
    """Before a command: it finds an empty file system in the place of a directory, with these options (`ro`, `size=1m`)."""
    return _checked(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, options, str(directory)])


def read_only(directory: Path) -> list[str]:
    """Before a command: it finds a directory as it is, but cannot write in it."""
    bind = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    return _checked(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", bind, str(directory)])


def lines_of(finished: subprocess.CompletedProcess[str]) -> Sequence[str]:
    """What a program has said on stderr, line by line."""
    return finished.stderr.splitlines()
