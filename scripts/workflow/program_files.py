"""The files of a program: itself and the modules of this repository that it imports, found by reading its imports.

Snakemake does not track a program that a `shell:` calls, so rules name these files as inputs: editing one of them reruns
what the program makes, and nothing else.

Import lines are found by a pattern, because parsing every module would take a tenth of the time of a dry run. A test compares
the result with Python's own parser.
"""

import functools
import re
from pathlib import Path

# `from a.b import c, d` with the names on one line or in parentheses, and `import a.b, c`.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ ]+([\w.]+)[ ]+import[ ]+(?:\(([^)]*)\)|([^(\n]*))|import[ ]+([^\n]*))", re.MULTILINE
)
_NAME = re.compile(r"(?:^|,)\s*([\w.]+)")
_COMMENT = re.compile(r"#[^\n]*")


def imported_names(text: str) -> set[str]:
    """Dotted names of all modules that a text imports, `from a.b import c` counting as both a.b and a.b.c."""
    names: set[str] = set()
    for module, in_parentheses, on_line, modules in _IMPORT.findall(text):
        listed = _NAME.findall(_COMMENT.sub("", in_parentheses or on_line or modules))
        names.update([module, *(f"{module}.{name}" for name in listed)] if module else listed)
    return names


@functools.cache
def imported_files(path: Path, root: Path) -> frozenset[Path]:
    """The files below `root` that a file imports."""
    names = imported_names(path.read_text(encoding="utf-8"))
    candidates = (root / f"{name.replace('.', '/')}.py" for name in names)
    return frozenset(candidate for candidate in candidates if candidate.exists())


def program_files(program_path: Path, root: Path) -> list[str]:
    """The program and, sorted, every module below `root` that it imports directly or through others."""
    found: set[Path] = set()
    waiting = [program_path]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported_files(path, root)
    return [str(program_path), *sorted(str(path) for path in found - {program_path})]
