"""A file system with reflinks shares blocks between two files."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import debian_packages
from scripts.graft.file_sharing import share_file


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


def test_a_file_system_with_reflinks_gives_files_of_their_own_that_take_no_space(root: Path, xfs_dir: Path) -> None:
    content = os.urandom(32 << 20)
    source_path, target_path = xfs_dir / "source", xfs_dir / "target"
    source_path.write_bytes(content)
    source_path.chmod(0o600)
    os.sync()
    free_before = os.statvfs(xfs_dir).f_bfree * os.statvfs(xfs_dir).f_frsize
    assert share_file(source_path, target_path, 0o644) is None
    assert free_before - os.statvfs(xfs_dir).f_bfree * os.statvfs(xfs_dir).f_frsize < len(content) // 10
    assert (source_path.stat().st_nlink, target_path.stat().st_nlink) == (1, 1)
    assert target_path.stat().st_mode & 0o777 == 0o644
    with open(target_path, "r+b") as file:
        file.write(b"changed")
    assert source_path.read_bytes() == content
