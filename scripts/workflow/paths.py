"""Which paths a configuration may name: what Snakemake would not take as it is, and where results would destroy something."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Directories of this repository, and those that every run shares: results in them would mix with what is there.
RESERVED_DIRS = (
    "benchmarks", "config", "docs", "envs", "logs", "model", "profiles", "resources", "rules", "scripts", "slurm", "study",
    "tests", "texts", "work",
)  # fmt: skip

# What a run makes in its directory (scripts/workflow/layout.py); a run of that name inside another's would share its files.
NAMES_OF_A_RUN = (
    "calibration", "config.json", "curves", "data", "disagreements", "eval", "graft", "model_files", "questions", "report.html",
    "stage1", "stage2", "times",
)  # fmt: skip

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
# What Snakemake replaces in every path that it is given, also in a path from a function: `{wildcard}` and `<pathvar>`.
_SNAKEMAKE_PATTERN = re.compile(r"\{[^{}]*\}|<[a-z][a-z0-9_]*>")

# What Linux takes; a temporary name beside the file adds some characters to the name.
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 200, 4000

# With the temporary names beside it, a name fits into the 255 bytes of a file system.
MAX_NAME_LENGTH = 100


def path_fault(path: str) -> str | None:
    """Why a path of the user's cannot be an input of a rule, or None."""
    shown = json.dumps(path, ensure_ascii=False)
    if _CONTROL_CHARACTER.search(path):
        return f"{json.dumps(path)} found; expected a path without line breaks and other control characters; rename it"
    if any("\ud800" <= letter <= "\udfff" for letter in path):
        return f"{json.dumps(path)} found; expected a path without half characters; rename it"
    if len(path.encode()) > _MAX_PATH_BYTES or any(len(part.encode()) > _MAX_NAME_BYTES for part in path.split("/")):
        return (
            f"a path of {len(path.encode())} bytes found ({shown[:80]}…); expected at most {_MAX_PATH_BYTES}, and "
            f"{_MAX_NAME_BYTES} a name; rename it, or make a link to it that has a shorter name, and name the link here"
        )
    if pattern := _SNAKEMAKE_PATTERN.search(path):
        return (
            f"{shown} found; Snakemake would replace the {pattern.group()} in it; rename the file or directory, or make a link "
            "to it that has another name, and name the link here"
        )
    return None


def _kind_of(path: Path) -> str:
    if path.is_file():
        return "a file"
    return "a link to nothing" if path.is_symlink() else "a pipe, a socket or a device"


def _results_fault(results: str) -> str | None:
    parts = results.split("/")
    if results.startswith("/"):
        return "expected a path relative to the working directory"
    if any(part in ("", ".", "..") for part in parts):
        return "expected names with a single slash between them, as in results/mine, without . and .."
    if any(part.startswith(("-", ".")) for part in parts):
        return "expected names that begin with a letter, a digit or _"
    if any(len(part) > MAX_NAME_LENGTH for part in parts) or len(results) > 2 * MAX_NAME_LENGTH:
        return f"expected names of at most {MAX_NAME_LENGTH} characters, {2 * MAX_NAME_LENGTH} in all"
    if parts[0] in RESERVED_DIRS:
        return f"{parts[0]}/ holds other files; expected a directory of its own, for example results/{parts[-1]}"
    if taken := [part for part in parts[1:] if part in NAMES_OF_A_RUN]:
        return f"a run in {results.partition(f'/{taken[0]}')[0]} keeps files of its own in {taken[0]}/; expected another name"
    # What a run keeps beside its results has their name, too.
    for path in (PurePosixPath(results), PurePosixPath("logs", results), PurePosixPath("work", results)):
        for each in (path, *path.parents):
            if os.path.lexists(each) and not Path(each).is_dir():
                return f"{each} is {_kind_of(Path(each))}; expected the name of a directory"
    return None


def results_findings(results: str) -> Iterator[str]:
    """A directory of results that would lie outside, be taken for an option, or mix with other files."""
    if fault := _results_fault(results):
        yield f"results: {json.dumps(results)} found; {fault}"
