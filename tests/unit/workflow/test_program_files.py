"""The files of a program are found by its imports."""

import ast
from pathlib import Path

from scripts.workflow.program_files import imported_names, program_files


def names_by_parser(text: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return names


def test_imports_are_found_in_every_form() -> None:
    text = (
        '"""Text that imports nothing."""\n'
        "import a, b.c as d  # import x\n"
        "from e.f import g, h as i\n"
        "from j import (\n    k,\n    l,  # a comment, with a comma\n)\n"
        "def late() -> None:\n    from m import n\n"
    )
    assert imported_names(text) == names_by_parser(text)


def of_this_repository(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in ("scripts", "study", "benchmarks")}


def test_pythons_own_parser_finds_the_same_imports_of_ours_in_every_module(root: Path) -> None:
    paths = [*root.glob("scripts/*/*.py"), *root.glob("study/*.py"), *root.glob("benchmarks/*.py")]
    assert len(paths) > 100
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert of_this_repository(imported_names(text)) == of_this_repository(names_by_parser(text)), path


def test_a_program_is_itself_and_the_modules_that_it_imports(tmp_path: Path) -> None:
    common_dir = tmp_path / "scripts/common"
    common_dir.mkdir(parents=True)
    (common_dir / "first.py").write_text("from scripts.common import second\n")
    (common_dir / "second.py").write_text("import json\n")
    (common_dir / "unused.py").write_text("")
    program_path = tmp_path / "scripts/program.py"
    program_path.write_text("import os\nfrom scripts.common.first import thing\n")
    expected = [program_path, common_dir / "first.py", common_dir / "second.py"]
    assert program_files(program_path, tmp_path) == [str(path) for path in expected]


def test_modules_that_import_each_other_are_listed_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("import a\n")
    assert program_files(tmp_path / "a.py", tmp_path) == [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
