"""What several tests of the graft need."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import debian_packages


@pytest.fixture
def xfs_dir(tmp_path: Path) -> Iterator[Path]:
    """A file system that knows reflinks, in a file, where the test may mount one."""
    if os.geteuid() or not debian_packages.can_have(["mkfs.xfs"]):
        pytest.skip("a file system with reflinks can be made and mounted by root alone")
    debian_packages.install(["mkfs.xfs"], ["xfsprogs"])
    image_path, directory = tmp_path / "xfs.img", tmp_path / "xfs"
    directory.mkdir()
    with open(image_path, "wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image_path)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image_path), str(directory)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)
