"""Builds one virtual environment from its hashed lock, `.venvs/<role>` from `envs/<role>.lock`.

Each role (train, serve, evaluate) has its own, because ms-swift, vLLM and EvalScope pin different things. uv takes
what it can from its cache; wheels can also come from a folder named by UV_FIND_LINKS. The marker is written last, with the
lock's sha256, so a build that was interrupted is never taken for a whole one.

By hand:
    .venv/bin/python scripts/build_environment.py \\
        --lock envs/train.lock --environment-dir .venvs/train --marker .venvs/train.ok
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from common.errors import UserError, run_program
from common.files import sha256_of_file, write_text_atomically


def uv_commands(uv_path: Path, lock_path: Path, environment_dir: Path, python_path: Path) -> list[list[str]]:
    """The commands that make the environment: create, fill with exactly the lock, check that requirements agree."""
    inside = str(environment_dir / "bin" / "python")
    return [
        [str(uv_path), "venv", "--quiet", "--clear", "--python", str(python_path), str(environment_dir)],
        [str(uv_path), "pip", "sync", "--python", inside, "--require-hashes", str(lock_path)],
        [str(uv_path), "pip", "check", "--python", inside],
    ]


def build(lock_path: Path, environment_dir: Path, marker_path: Path) -> None:
    """Runs the commands and writes the marker; raises UserError with the failing command."""
    if not lock_path.exists():
        raise UserError(f"{lock_path}: not found; expected the hashed lock of this environment; restore it with git")
    uv_path = Path(sys.executable).parent / "uv"
    if not uv_path.exists():
        raise UserError(f"{uv_path}: not found; expected uv in the workflow environment; run `make .venv`")
    marker_path.unlink(missing_ok=True)
    for command in uv_commands(uv_path, lock_path, environment_dir, Path(sys.executable)):
        print("+", " ".join(command), file=sys.stderr, flush=True)
        status = subprocess.run(command, check=False, env={**os.environ, "UV_NO_PROGRESS": "1"}).returncode
        if status != 0:
            raise UserError(
                f"{lock_path}: `{' '.join(command)}` ended with status {status}; its output is above; "
                "without access to a package index, fill UV_FIND_LINKS with the wheels, then run the same command again"
            )
    write_text_atomically(marker_path, f"{sha256_of_file(lock_path)}  {lock_path}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--environment-dir", type=Path, required=True)
    parser.add_argument("--marker", type=Path, required=True)
    arguments = parser.parse_args()
    build(arguments.lock, arguments.environment_dir, arguments.marker)


if __name__ == "__main__":
    run_program(main)
