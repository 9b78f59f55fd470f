"""Builds one virtual environment from its hashed lock, `.venvs/<role>` from `envs/<role>.lock`.

Each role (train, serve, evaluate) has its own, because ms-swift, vLLM and EvalScope pin different versions. uv uses its cache;
wheels can also come from a folder named by UV_FIND_LINKS. An environment whose marker has the lock's sha256 is left alone; any
other is built beside the one in use (scripts/environments/building.py). The marker is written last, with the lock's sha256, so
an interrupted build is never mistaken for a whole one.

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
import sys
from dataclasses import replace
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.environments.building import Build, Place, build_beside

COMPILE_ADVICE = (
    "compiling needs a C++ compiler and nvcc of the CUDA version that torch was built with (often `module load cuda`); "
    "load them, or do without it: environments.train: train with attn_impl: sdpa"
)


def install(build: Build, uv_path: Path) -> None:
    """Creates the environment and installs exactly the lock."""
    advice = "without access to a package index, fill UV_FIND_LINKS with the wheels"
    variables = {"UV_NO_PROGRESS": "1"}
    build.run([uv_path, "venv", "--quiet", "--clear", "--python", sys.executable, build.directory], variables, advice)
    options = ["--compile-bytecode", "--python", str(build.python), "--require-hashes"]
    build.run([str(uv_path), "pip", "sync", *options, str(build.lock_path)], variables, advice)


def compile_packages(build: Build, uv_path: Path) -> None:
    """Builds the packages of the build's lock with the tools and the torch of the environment."""
    variables = {
        "UV_NO_PROGRESS": "1",
        # Otherwise its setup.py would fetch a binary that no hash covers.
        "FLASH_ATTENTION_FORCE_BUILD": "TRUE",
        "PATH": f"{build.directory.resolve()}/bin:{os.environ['PATH']}",
    }
    # Without uv's cache, which may hold a build against another torch.
    options = ["--require-hashes", "--no-deps", "--no-build-isolation", "--no-cache"]
    where = ["--python", str(build.python), "--requirement", str(build.lock_path)]
    build.run([str(uv_path), "pip", "install", *where, *options], variables, COMPILE_ADVICE)
    packages = re.findall(r"^([\w-]+)==", build.lock_path.read_text(encoding="utf-8"), re.MULTILINE)
    build.run([build.python, "-c", f"import {', '.join(packages).replace('-', '_')}"], {}, COMPILE_ADVICE)


def build_environment(lock_path: Path, compiled_lock_path: Path | None, marker_path: Path) -> None:
    """Builds the environment and writes the marker. Raises UserError with the failing command."""
    uv_path = Path(sys.executable).parent / "uv"
    if not uv_path.exists():
        raise UserError(f"{uv_path}: not found; expected uv in the workflow environment; run `make .venv/ok`")
    locks = [lock_path, *([compiled_lock_path] if compiled_lock_path else [])]
    link = marker_path.with_suffix("")

    def fill(build: Build) -> None:
        install(build, uv_path)
        if compiled_lock_path:
            compile_packages(replace(build, lock_path=compiled_lock_path), uv_path)

    build_beside(Place(link, link.parent, link.name, locks, marker_path), fill)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--compiled-lock", type=Path, help="what is compiled against the rest")
    parser.add_argument("--marker", type=Path, required=True, help="DIR.ok, written last; the environment is DIR")
    arguments = parser.parse_args()
    build_environment(arguments.lock, arguments.compiled_lock, arguments.marker)


if __name__ == "__main__":
    run_program(main)
