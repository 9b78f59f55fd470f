"""The layout of the repository: which folder holds what, and who imports whom."""

import ast
from pathlib import Path

import pytest

SUBJECTS = (
    "environments", "donors", "data", "questions", "graft", "train", "plan", "serve", "evaluate", "report", "upload", "demo",
    "workflow",
)  # fmt: skip
# Rules of the workflow are the Snakefile's own; serving by hand is no rule.
WITHOUT_RULES = {"workflow", "serve"}


def imports_of(path: Path) -> set[str]:
    """Modules of the package `scripts` that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "scripts":
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.split(".")[0] == "scripts")
    return found


def modules(root: Path) -> dict[str, Path]:
    paths = sorted((root / "scripts").glob("*/*.py"))
    return {f"scripts.{path.parent.name}.{path.stem}": path for path in paths if path.stem != "__init__"}


def is_program(path: Path) -> bool:
    return '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_has_one_name_everywhere(root: Path, subject: str) -> None:
    assert (root / "scripts" / subject / "__init__.py").exists()
    assert (root / "docs" / f"{subject}.md").exists()
    assert (root / "tests/unit" / subject).is_dir()
    assert (root / "rules" / f"{subject}.smk").exists() or subject in WITHOUT_RULES


def test_no_folder_of_scripts_is_without_a_subject(root: Path) -> None:
    folders = {path.parent.name for path in (root / "scripts").glob("*/*.py")}
    assert folders == {*SUBJECTS, "common"}


def test_no_program_is_imported(root: Path) -> None:
    programs = {name for name, path in modules(root).items() if is_program(path)}
    importers = {name: sorted(imports_of(path) & programs) for name, path in modules(root).items()}
    assert {name: found for name, found in importers.items() if found} == {}


def test_the_common_modules_import_no_subject_and_are_few(root: Path) -> None:
    paths = sorted((root / "scripts/common").glob("*.py"))
    for path in paths:
        assert {name.split(".")[1] for name in imports_of(path)} <= {"common"}, path
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths) < 1000


def test_no_module_is_longer_than_400_lines(root: Path) -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(root).items()}
    assert {name: length for name, length in lengths.items() if length >= 400} == {}


def test_subjects_depend_on_each_other_in_one_direction(root: Path) -> None:
    """No circle of folders, so that each can be read after those that it builds on."""
    needs: dict[str, set[str]] = {subject: set() for subject in SUBJECTS}
    for name, path in modules(root).items():
        subject = name.split(".")[1]
        if subject in needs:
            needs[subject] |= {each.split(".")[1] for each in imports_of(path)} - {subject, "common"}
    ordered: list[str] = []
    while len(ordered) < len(needs):
        ready = [subject for subject in needs if subject not in ordered and needs[subject] <= set(ordered)]
        left = {subject: sorted(needs[subject] - set(ordered)) for subject in needs if subject not in ordered}
        assert ready, f"these import each other: {left}"
        ordered += ready


def test_a_unit_test_bears_the_name_of_the_module_that_it_tests(root: Path) -> None:
    strays = [
        str(path.relative_to(root))
        for subject in (*SUBJECTS, "common")
        for path in sorted((root / "tests/unit" / subject).glob("test_*.py"))
        if not (root / "scripts" / subject / f"{path.stem.removeprefix('test_')}.py").exists()
    ]
    assert strays == []
