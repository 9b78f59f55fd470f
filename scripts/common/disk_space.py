"""Free space on a disk, and how to recognise that there was none."""

import errno
import os
import re
from pathlib import Path

# A full disk, and an exhausted quota.
NO_ROOM_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})

# The same in the output of a program. The last is torch.save's, which does not give the reason of a short write
# (caffe2/serialize/inline_container.cc).
_NO_ROOM_TEXT = re.compile(r"No space left on device|Disk quota exceeded|inline_container\.cc.*unexpected pos")


def reports_full_disk(line: str) -> bool:
    """Whether a line of a program's output reports a full disk."""
    return bool(_NO_ROOM_TEXT.search(line))


def free_bytes(directory: Path) -> int:
    """Free bytes of a directory's file system, for this user; quotas are not considered."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
