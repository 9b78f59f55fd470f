"""Makes an environment whose interpreter runs inside the image, so that programs start it like any other.

Refuses an image that was built from another lock than this repository's. Inside, a program sees this repository, the
directory in which it is started, and, as usual with Apptainer, the home directory and /tmp. What else a run needs (donors
elsewhere, a scratch file system) is named in APPTAINER_BIND.

By hand:
  .venv/bin/python scripts environments.enter_image \
    --image .venvs/vlgraft.sif --lock envs/train.lock --marker .venvs/image/train.ok
"""

import argparse
import shlex
import subprocess
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import sha256_of_file, write_text_atomically
from scripts.common.root import ROOT
from scripts.environments.marker import marker_text

# Where the definition (envs/vlgraft.def) puts environments and their markers.
IMAGE_DIR = Path("/opt/vlgraft")

# A program inside the image may start others of its environments: directly, since there is no Apptainer inside.
INTERPRETER = """\
#!/bin/sh
# {role}'s interpreter in {image}; made by scripts/environments/enter_image.py
if [ -x {python} ]; then exec {python} "$@"; fi
exec apptainer --quiet exec --nv --bind {root} --bind "$PWD" {image} {python} "$@"
"""


def lock_in_image(image_path: Path, role: str) -> str:
    """sha256 of the lock that the image's environment was built from. Raises UserError when the image has no record of it."""
    command = ["apptainer", "--quiet", "exec", str(image_path), "cat", str(IMAGE_DIR / f"{role}.ok")]
    try:
        finished = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            f"apptainer: not found; expected it here and on every compute node, to run {image_path}; load its module, "
            "or write environments.kind: venv"
        ) from None
    if finished.returncode:
        raise UserError(
            f"{image_path}: holds no environment {role}, or cannot be run ({finished.stderr.strip()}); expected an image built "
            "from envs/vlgraft.def; remove it and give the same command again"
        )
    return finished.stdout.split()[0]


def enter(image_path: Path, lock_path: Path, marker_path: Path) -> None:
    """Writes interpreter and marker; raises UserError when the image is not of this lock."""
    role = lock_path.stem
    expected = sha256_of_file(lock_path)
    found = lock_in_image(image_path, role)
    if found != expected:
        raise UserError(
            f"{image_path}: its environment {role} was built from a lock with sha256 {found}, but {lock_path} has {expected}; "
            "remove the image and give the same command again"
        )
    marker_path.unlink(missing_ok=True)
    python_path = marker_path.with_suffix("") / "bin" / "python"
    text = INTERPRETER.format(
        role=role, python=IMAGE_DIR / role / "bin/python",
        image=shlex.quote(str(image_path.resolve())), root=shlex.quote(str(ROOT)),
    )  # fmt: skip
    write_text_atomically(python_path, text)
    python_path.chmod(0o755)
    write_text_atomically(marker_path, marker_text([lock_path]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--marker", type=Path, required=True, help="DIR.ok, written last; the environment is DIR")
    arguments = parser.parse_args()
    enter(arguments.image, arguments.lock, arguments.marker)


if __name__ == "__main__":
    run_program(main)
