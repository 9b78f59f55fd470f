"""A process that is to end with its parent does so, whoever is faster."""

import os
import subprocess
import sys

from scripts.common.root import ROOT


def test_a_child_whose_parent_was_faster_ends_at_once() -> None:
    """Killed between the fork and the wish to die with it: nobody would send the signal any more."""
    code = "from scripts.common.processes import die_with_parent; die_with_parent(9, {pid}); print('lives')"
    for pid, status, said in ((os.getpid(), 0, "lives\n"), (1, 1, "")):
        finished = subprocess.run(
            [sys.executable, "-c", code.format(pid=pid)], cwd=ROOT, capture_output=True, text=True
        )
        assert (finished.returncode, finished.stdout) == (status, said)
