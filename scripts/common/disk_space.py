"""Free space on a disk, and how to recognise that there was none."""

import errno
import os
from pathlib import Path

# A full disk, and an exhausted quota.
NO_ROOM_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})


def free_bytes(directory: Path) -> int:
    """Free bytes of a directory's file system, for this user; quotas are not considered."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
