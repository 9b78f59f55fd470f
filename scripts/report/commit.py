"""The commit of this repository: of the checkout, or of the archive that it was unpacked from (.gitattributes)."""

import os
import subprocess
from dataclasses import dataclass

from scripts.common.root import ROOT

_DIRTY_SUFFIX = "-dirty"


@dataclass(frozen=True)
class Commit:
    """`name` is a hash or a tag, `unknown` without git or an archive's record; `is_dirty`: with uncommitted changes."""

    name: str
    is_dirty: bool


def current_commit() -> Commit:
    """The commit that is checked out; also where the checkout is another user's, never that of a repository around it."""
    if not (ROOT / ".git").exists():
        record = ROOT / ".git_archival.txt"
        recorded = record.read_text(encoding="utf-8").strip() if record.exists() else "$"
        return Commit("unknown" if "$" in recorded else recorded, is_dirty=False)
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        described = subprocess.run(command, capture_output=True, text=True, env=environment).stdout.strip()
    except OSError:
        described = ""
    return Commit(described.removesuffix(_DIRTY_SUFFIX) or "unknown", described.endswith(_DIRTY_SUFFIX))
