"""Builds one virtual environment from its hashed lock, `.venvs/<role>` from `envs/<role>.lock`.

Each role (train, serve, evaluate) has its own, because ms-swift, vLLM and EvalScope pin different versions. uv uses its cache;
wheels can also come from a folder named by UV_FIND_LINKS. The marker is written last, with the lock's sha256, so an interrupted
build is never mistaken for a whole one.

A package that is published as source and compiled against the environment's torch (FlashAttention) has a lock of its own and is
built last: it needs nvcc and a C++ compiler, but no GPU.

By hand:
    .venv/bin/python scripts environments.build_environment \
        --lock envs/train.lock --marker .venvs/train.ok
    .venv/bin/python scripts environments.build_environment --lock envs/train.lock --compiled-lock envs/flash_attn.lock \
        --marker .venvs/train_flash_attn.ok
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import sha256_of_file, write_text_atomically
from scripts.common.logger import log

COMPILE_ADVICE = (
    "compiling needs a C++ compiler and nvcc of the CUDA version that torch was built with (often `module load cuda`); "
    "load them, or do without it: environments.train: train with attn_impl: sdpa"
)


def install_commands(uv_path: Path, lock_path: Path, environment_dir: Path, python_path: Path) -> list[list[str]]:
    """Creates the environment and installs exactly the lock."""
    inside = str(environment_dir / "bin" / "python")
    return [
        [str(uv_path), "venv", "--quiet", "--clear", "--python", str(python_path), str(environment_dir)],
        [str(uv_path), "pip", "sync", "--compile-bytecode", "--python", inside, "--require-hashes", str(lock_path)],
    ]


def compile_command(uv_path: Path, lock_path: Path, environment_dir: Path) -> list[str]:
    """Builds the packages of this lock with the tools and the torch of the environment."""
    inside = str(environment_dir / "bin" / "python")
    # Without uv's cache, which may hold a build against another torch.
    options = ["--require-hashes", "--no-deps", "--no-build-isolation", "--no-cache"]
    return [str(uv_path), "pip", "install", "--python", inside, *options, "--requirement", str(lock_path)]


def run(command: Sequence[str], lock_path: Path, variables: Mapping[str, str], advice: str) -> None:
    """Runs one command. Raises UserError naming it when it fails."""
    log(f"+ {' '.join(command)}")
    status = subprocess.run(command, check=False, env={**os.environ, "UV_NO_PROGRESS": "1", **variables}).returncode
    if status != 0:
        raise UserError(
            f"{lock_path}: `{' '.join(command)}` ended with status {status}; its output is above; {advice}, "
            "then run the same command again"
        )


def build(lock_path: Path, compiled_lock_path: Path | None, marker_path: Path) -> None:
    """Builds the environment and writes the marker. Raises UserError with the failing command."""
    environment_dir = marker_path.with_suffix("")
    locks = [lock_path, *([compiled_lock_path] if compiled_lock_path else [])]
    for path in locks:
        if not path.exists():
            raise UserError(f"{path}: not found; expected the hashed lock of this environment; restore it with git")
    uv_path = Path(sys.executable).parent / "uv"
    if not uv_path.exists():
        raise UserError(f"{uv_path}: not found; expected uv in the workflow environment; run `make .venv/ok`")
    marker_path.unlink(missing_ok=True)
    for command in install_commands(uv_path, lock_path, environment_dir, Path(sys.executable)):
        run(command, lock_path, {}, "without access to a package index, fill UV_FIND_LINKS with the wheels")
    if compiled_lock_path:
        # Otherwise its setup.py would fetch a binary that no hash covers.
        variables = {
            "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
            "PATH": f"{environment_dir.resolve()}/bin:{os.environ['PATH']}",
        }
        run(
            compile_command(uv_path, compiled_lock_path, environment_dir), compiled_lock_path, variables, COMPILE_ADVICE
        )
        packages = re.findall(r"^([\w-]+)==", compiled_lock_path.read_text(encoding="utf-8"), re.MULTILINE)
        imports = f"import {', '.join(packages).replace('-', '_')}"
        run([str(environment_dir / "bin/python"), "-c", imports], compiled_lock_path, {}, COMPILE_ADVICE)
    write_text_atomically(marker_path, "".join(f"{sha256_of_file(path)}  {path}\n" for path in locks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--compiled-lock", type=Path, help="what is compiled against the rest")
    parser.add_argument("--marker", type=Path, required=True, help="DIR.ok, written last; the environment is DIR")
    arguments = parser.parse_args()
    build(arguments.lock, arguments.compiled_lock, arguments.marker)


if __name__ == "__main__":
    run_program(main)
