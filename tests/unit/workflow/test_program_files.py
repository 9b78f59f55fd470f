"""Rules learn from a program's imports which files it is made of."""

from pathlib import Path

from scripts.workflow.program_files import program_files


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
