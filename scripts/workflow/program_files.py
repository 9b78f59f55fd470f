"""The files of a program: itself and the modules of this repository that it imports, found by reading its imports.

Snakemake does not track a program that a `shell:` calls, so rules name these files as inputs: editing one of them reruns
what the program makes, and nothing else.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement in a module; its expressions, most of the tree, hold no import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from _statements(child)


@functools.cache
def imported_modules(path: Path) -> frozenset[str]:
    """Dotted names of all modules that the file imports, `from a.b import c` counting as both a.b and a.b.c."""
    names: set[str] = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def program_files(program_path: Path, root: Path) -> list[str]:
    """The program and, sorted, every module below `root` that it imports directly or through others."""
    found: set[Path] = set()
    waiting = [program_path]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in imported_modules(path):
            candidate = root.joinpath(*name.split(".")).with_suffix(".py")
            if candidate.exists():
                waiting.append(candidate)
    return [str(program_path), *sorted(str(path) for path in found - {program_path})]
