"""What another environment holds, read by its own interpreter without importing anything of it."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError

_LOOK = """
import importlib.metadata, importlib.util, json, platform, sys
required, optional, module = json.loads(sys.argv[1])
versions = {"python": platform.python_version()}
for name in [*required, *optional]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name in required:
            sys.exit(f"{name} is not installed")
place = importlib.util.find_spec(module).submodule_search_locations[0] if module else None
print(json.dumps([versions, place]))
"""


def _look(
    python: Path, required: Sequence[str], optional: Sequence[str], module: str | None
) -> tuple[dict[str, str], str]:
    argument = json.dumps([list(required), list(optional), module])
    try:
        finished = subprocess.run([python, "-c", _LOOK, argument], capture_output=True, text=True)
        reason = (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1]
    except OSError as error:
        reason = str(error.strerror)
    else:
        if finished.returncode == 0:
            versions, place = json.loads(finished.stdout)
            return versions, place
    raise UserError(
        f"{python}: cannot tell what it holds ({reason}); expected an environment with {', '.join(required)}; remove "
        f"{python.parent.parent}.ok and have it built again by `snakemake --profile slurm prefetch` or `make environments`"
    )


def versions_in(python: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python and these packages; an optional one is left out where it is missing.

    Raises UserError naming the interpreter when it does not run or lacks a required package.
    """
    return _look(python, required, optional, None)[0]


def package_dir(python: Path, distribution: str, module: str) -> Path:
    """Where a module's files lie for that interpreter. Raises UserError as `versions_in` does."""
    return Path(_look(python, [distribution], [], module)[1])
