"""A file system of a size of its own, in memory, to be filled."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_file_system(directory: Path, size: str) -> Iterator[Path]:
    """An empty file system (`size` as mount takes it: `64k`, `1m`) in a new directory; a test that may not mount is skipped."""
    directory.mkdir(parents=True)
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no program to mount a file system with")
    if mounted.returncode != 0:
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def remount(directory: Path, option: str) -> None:
    """Changes the file system of a directory: `size=20m`, `ro`."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(directory)], check=True, capture_output=True)
