"""Packages of another environment, listed by its own interpreter without importing them."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError

_VERSIONS = """
import importlib.metadata, json, platform, sys
required, optional = json.loads(sys.argv[1])
versions = {"python": platform.python_version()}
for name in [*required, *optional]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name in required:
            sys.exit(f"{name} is not installed")
print(json.dumps(versions))
"""

_PACKAGE_DIR = """
import importlib.util, json, sys
found = importlib.util.find_spec(json.loads(sys.argv[1]))
print(json.dumps(found.submodule_search_locations[0])) if found else sys.exit("it is not installed")
"""


def _ask(python: Path, code: str, argument: Any, expected: str) -> Any:
    """The JSON that a program prints in that environment; raises UserError naming the interpreter when it does not."""
    try:
        finished = subprocess.run([python, "-c", code, json.dumps(argument)], capture_output=True, text=True)
        reason = (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1]
    except OSError as error:
        reason = str(error.strerror)
    else:
        if finished.returncode == 0:
            return json.loads(finished.stdout)
    raise UserError(
        f"{python}: cannot tell what it holds ({reason}); expected an environment with {expected}; remove "
        f"{python.parent.parent}.ok and have it built again by `snakemake --profile slurm prefetch` or `make environments`"
    )


def versions_in(python: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python and these packages; an optional one is left out where it is missing.

    Raises UserError naming the interpreter when it does not run or lacks a required package.
    """
    versions: dict[str, str] = _ask(python, _VERSIONS, [list(required), list(optional)], ", ".join(required))
    return versions


def package_dir(python: Path, module: str) -> Path:
    """Where a module's files lie for that interpreter. Raises UserError as `versions_in` does."""
    return Path(_ask(python, _PACKAGE_DIR, module, module))
