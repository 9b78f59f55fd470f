"""Programs of Debian's packages, installed by the tests that need them."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


def can_have(programs: Sequence[str]) -> bool:
    """Whether the programs are there, or can be installed by this user."""
    return all(shutil.which(program) for program in programs) or (
        os.geteuid() == 0 and shutil.which("apt-get") is not None
    )


def install(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Installs the packages where one of their programs is missing; their services are not started."""
    with open(Path(tempfile.gettempdir()) / "vlgraft-tests-apt.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # groups of tests run beside each other; apt-get refuses to
        if all(shutil.which(program) for program in programs):
            return
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            finished = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
            assert finished.returncode == 0, finished.stderr[-3000:]
