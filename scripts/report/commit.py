"""The commit of this repository."""

import subprocess
from dataclasses import dataclass

from scripts.common.root import ROOT

_DIRTY_SUFFIX = "-dirty"


@dataclass(frozen=True)
class Commit:
    """`name` is a hash or a tag, `unknown` outside a git checkout; `is_dirty`: with uncommitted changes."""

    name: str
    is_dirty: bool


def current_commit() -> Commit:
    """The commit that is checked out."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        described = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        described = ""
    return Commit(described.removesuffix(_DIRTY_SUFFIX) or "unknown", described.endswith(_DIRTY_SUFFIX))
