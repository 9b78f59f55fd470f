"""Builds the image with all environments, one file, by Apptainer from its definition.

The tens of thousands of small files of a virtual environment are slow to read from a shared file system and count against
quotas; an image is one file. It takes its name only when it is whole.

By hand:
    .venv/bin/python scripts environments.build_image --definition envs/vlgraft.def --image .venvs/vlgraft.sif
"""

import argparse
import shutil
import subprocess
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import temporary_for
from scripts.common.logger import log
from scripts.common.ownership import owned


def build(definition_path: Path, image_path: Path, roles: str | None) -> None:
    """Builds the image. Raises UserError, and leaves no image, when Apptainer is missing or fails."""
    if shutil.which("apptainer") is None:
        raise UserError(
            f"apptainer: not found; expected it on this machine to build {image_path}; load its module, build the image "
            f"elsewhere (`apptainer build vlgraft.sif {definition_path}`) and put it there, or write environments.kind: venv"
        )
    arguments = ["--build-arg", f"roles={roles}"] if roles else []
    with temporary_for(image_path) as temporary:
        command = ["apptainer", "build", *arguments, str(temporary), str(definition_path)]
        log(f"+ {' '.join(command)}")
        status = subprocess.run(command).returncode
        if status != 0:
            raise UserError(
                f"{definition_path}: `{' '.join(command)}` ended with status {status}; its output is above; where login nodes "
                f"may not build images, build it elsewhere and put it at {image_path}, then run the same command again"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--definition", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--roles", help="environments to put in, separated by blanks; all of them when not given")
    arguments = parser.parse_args()
    with owned(arguments.image):
        build(arguments.definition, arguments.image, arguments.roles)


if __name__ == "__main__":
    run_program(main)
