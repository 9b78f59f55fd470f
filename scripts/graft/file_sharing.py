"""One file in two places without a second copy of its bytes: a reflink where the file system can, else a hard link.

A reflink (Btrfs, XFS, …) is a file of its own that shares blocks until either is written. A hard link is a second name of
the same file, so whoever wrote into one would write into both; nothing here ever does.
"""

import fcntl
import os
from pathlib import Path

# ioctl FICLONE, from linux/fs.h: _IOW(0x94, 9, int).
_FICLONE = 0x40049409


def share_file(source_path: Path, target_path: Path, mode: int) -> str | None:
    """Makes `target_path` from `source_path` without copying, synced; returns why it cannot be, or None when it is.

    Another file system, one without such links, or a file of another user (Linux: fs.protected_hardlinks) cannot be
    shared. `mode` is that of a reflink; a hard link has its file's.
    """
    real_path = source_path.resolve()  # hubs' caches hold links to the files
    source = os.open(real_path, os.O_RDONLY)
    try:
        target = os.open(target_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            fcntl.ioctl(target, _FICLONE, source)
            os.fchmod(target, mode)
            os.fsync(target)
            return None
        except OSError:
            target_path.unlink()
        finally:
            os.close(target)
        try:
            os.link(real_path, target_path)
        except OSError as error:
            return error.strerror
        os.fsync(source)
        return None
    finally:
        os.close(source)
