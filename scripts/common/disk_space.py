"""Room on a disk: how much is free, and how programs say that there was none."""

import errno
import os
import re
from pathlib import Path

# A full disk, and a quota that is used up.
NO_ROOM_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})

# The same in what a program printed. The last is torch.save's, whose writer does not say why a write came short
# (caffe2/serialize/inline_container.cc).
_NO_ROOM_TEXT = re.compile(r"No space left on device|Disk quota exceeded|inline_container\.cc.*unexpected pos")


def says_no_room(line: str) -> bool:
    """Whether a line of a program's output tells of a full disk."""
    return bool(_NO_ROOM_TEXT.search(line))


def free_bytes(directory: Path) -> int:
    """What the file system of a directory has left for its user; a quota is not in it."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
