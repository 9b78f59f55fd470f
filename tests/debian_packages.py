"""Programs of Debian's packages, installed by the tests that need them."""

import os
import shutil
import subprocess
from collections.abc import Sequence


def can_have(programs: Sequence[str]) -> bool:
    """Whether the programs are there, or can be installed by this user."""
    return all(shutil.which(program) for program in programs) or (
        os.geteuid() == 0 and shutil.which("apt-get") is not None
    )


def install(programs: Sequence[str], packages: Sequence[str]) -> None:
    """Installs the packages where one of their programs is missing; their services are not started."""
    if all(shutil.which(program) for program in programs):
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        finished = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr[-3000:]
