"""A file system with reflinks shares blocks between two files."""

import os
from pathlib import Path

from scripts.graft.file_sharing import share_file


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
