"""Builds the workflow's own environment, `.venv`, which runs Snakemake, from its hashed lock with pip.

It is started by any Python 3.11 to 3.13, before anything is installed (scripts/environments/find_python.sh finds one), and leaves
an environment of the same lock alone. `.venv` is a link to `.venvs/workflow-…`, as the other environments are.

By hand: python3 scripts environments.build_workflow
"""

import argparse
import os
import sys
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.root import ROOT
from scripts.environments.building import WHOLE_NAME, Build, Place, build_beside

ADVICE = (
    "without access to a package index, fill a folder with the wheels and name it in PIP_FIND_LINKS with PIP_NO_INDEX=1"
)

# A user's own settings of pip that would install elsewhere than into the environment.
ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")


def install(build: Build) -> None:
    """Creates the environment with this Python, and installs exactly the lock."""
    without_pip = "its module venv needs ensurepip (Debian and Ubuntu: apt-get install python3-venv)"
    build.run([sys.executable, "-m", "venv", "--clear", build.directory], {}, without_pip)
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes"]
    command = [str(build.python), "-m", "pip", "install", *options, "--requirement", str(build.lock_path)]
    build.run(command, {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}, ADVICE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lock", type=Path, default=ROOT / "envs/workflow.lock")
    parser.add_argument("--environment-dir", type=Path, default=ROOT / ".venv")
    parser.add_argument("--store-dir", type=Path, default=ROOT / ".venvs", help="where the directories lie")
    arguments = parser.parse_args()
    for name in ELSEWHERE:
        os.environ.pop(name, None)
    link = arguments.environment_dir
    build_beside(Place(link, arguments.store_dir, "workflow", [arguments.lock], link / WHOLE_NAME), install)


if __name__ == "__main__":
    run_program(main)
