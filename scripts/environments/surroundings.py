"""What programs inherit from the machine that they run on: made harmless here, or refused in one line.

Every program is started by scripts/__main__.py, on whatever node, and that calls `enter` before all else. Its children inherit
the result. What a training or a server must not inherit beyond that is left out where it is started.
"""

import locale
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts.common.errors import UserError
from scripts.environments.python_start import provide_user_and_home

# By these a library would take itself for one rank of a training that somebody else started.
RANK_VARIABLES = frozenset({
    "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "NNODES",
    "NPROC_PER_NODE", "MASTER_ADDR", "MASTER_PORT", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE",
})  # fmt: skip
RANK_PREFIXES = ("TORCHELASTIC_", "PET_", "OMPI_COMM_WORLD_", "PMI_", "MV2_COMM_WORLD_")

# What modules of a cluster and shells set for another Python than that of our environments.
PYTHON_VARIABLES = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS", "PYTHONIOENCODING", "PYTHONSTARTUP"})

# Requests to servers of ours never leave this machine.
OWN_ADDRESSES = ("127.0.0.1", "localhost", "::1")

# A path of a Unix socket has at most 107 bytes, and libraries append up to 37 to the directory: vLLM `/UUID`, torch and
# multiprocessing less.
MAX_TMPDIR_BYTES = 107 - 37

# torch hands batches to the trainer in shared memory; with less room it ends by a signal and without a word.
SHARED_MEMORY_DIR = Path("/dev/shm")
MIN_SHARED_MEMORY_BYTES = 32 * 2**20
SUBJECTS_WITH_WORKERS = ("train", "serve", "evaluate")


def _no_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """curl and others read the lower-case name first."""
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if not any(name.lower().endswith("_proxy") for name in environment) or listed == "*":
        return {}
    names = [name.strip() for name in listed.split(",") if name.strip()]
    value = ",".join([*names, *(name for name in OWN_ADDRESSES if name not in names)])
    return {"no_proxy": value, "NO_PROXY": value}


def _is_utf8() -> bool:
    return bool(sys.flags.utf8_mode) or locale.getencoding().lower().replace("-", "") == "utf8"


def cleaned(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment that our programs and their children have instead."""
    kept = {
        name: value
        for name, value in inherited.items()
        if name not in RANK_VARIABLES | PYTHON_VARIABLES and not name.startswith(RANK_PREFIXES)
    }
    kept |= _no_proxy(kept)
    return kept if _is_utf8() else kept | {"PYTHONUTF8": "1"}


def check_home() -> None:
    """Makes the home directory where it is our own. Raises UserError where that cannot be."""
    try:
        Path(os.environ["HOME"]).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"HOME: cannot be written, and neither can {os.environ['HOME']} ({error.strerror}); expected one of them for the "
            "caches of libraries; set HOME, or work in a directory of your own"
        ) from None


def check_packages() -> None:
    """Raises UserError where PYTHONPATH has put another package in the place of one of this environment's."""
    others = [f"{Path(entry).absolute()}/" for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    for name in ("snakemake", "yaml", "jsonschema", "numpy", "psutil", "jinja2"):
        path = getattr(sys.modules.get(name), "__file__", None) or ""
        if path.startswith(tuple(others)):
            raise UserError(
                f"PYTHONPATH: {name} was loaded from {path}; expected the one of this environment; unset PYTHONPATH (often "
                "`module purge`) and give the same command again"
            )


def check_temporary_directory(environment: Mapping[str, str]) -> None:
    """Raises UserError where libraries could not write temporary files, or open sockets between them."""
    directory = Path(environment.get("TMPDIR") or "/tmp")
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(2**14))
            file.flush()
    except OSError as error:
        raise UserError(
            f"TMPDIR: {directory} cannot be written ({error.strerror}); expected a directory for temporary files with some room; "
            "make it or make room, or set TMPDIR to another one"
        ) from None
    num_bytes = len(os.fsencode(directory.absolute()))
    if num_bytes > MAX_TMPDIR_BYTES:
        raise UserError(
            f"TMPDIR: {directory} has {num_bytes} characters; expected at most {MAX_TMPDIR_BYTES}, because the sockets that "
            "torch and vLLM make in it must not have more than 107; set TMPDIR to a shorter path"
        )


def check_shared_memory(directory: Path = SHARED_MEMORY_DIR) -> None:
    """Raises UserError where the processes of a training or a server cannot share memory."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
        status = os.statvfs(directory)
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written ({error.strerror}); expected shared memory, by which the processes of a training "
            "or a server exchange data; mount it (docker: --shm-size=8g; apptainer: without --no-mount dev)"
        ) from None
    num_bytes = status.f_bavail * status.f_frsize
    if num_bytes < MIN_SHARED_MEMORY_BYTES:
        raise UserError(
            f"{directory}: {num_bytes // 2**20} MiB free; expected at least {MIN_SHARED_MEMORY_BYTES // 2**20} MiB of shared "
            "memory, and gigabytes for large pictures; end what fills it, or mount it larger (docker: --shm-size=8g)"
        )


def enter(program: str) -> None:
    """Cleans the environment of this process, which starts anew where Python has read it already. Raises UserError."""
    provide_user_and_home()  # also in an environment that was built without scripts/environments/python_start.py
    check_home()
    inherited, clean = dict(os.environ), cleaned(os.environ)
    python_read = PYTHON_VARIABLES & inherited.keys() and not sys.flags.ignore_environment
    if python_read or clean.get("PYTHONUTF8") != inherited.get("PYTHONUTF8"):
        os.execve(sys.executable, [sys.executable, *sys.argv], clean)
    for name in inherited.keys() - clean.keys():
        del os.environ[name]
    os.environ.update(clean)
    check_temporary_directory(clean)
    if program.partition(".")[0] in SUBJECTS_WITH_WORKERS:
        check_shared_memory()
