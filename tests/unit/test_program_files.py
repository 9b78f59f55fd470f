"""Rules learn from a program's imports which files it is made of."""

from pathlib import Path

from common.program_files import program_files


def test_a_program_is_itself_and_the_modules_that_it_imports(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common/first.py").write_text("from common import second\n")
    (tmp_path / "common/second.py").write_text("import json\n")
    (tmp_path / "common/unused.py").write_text("")
    program_path = tmp_path / "program.py"
    program_path.write_text("import os\nfrom common.first import thing\n")
    expected = [program_path, tmp_path / "common/first.py", tmp_path / "common/second.py"]
    assert program_files(program_path) == [str(path) for path in expected]


def test_modules_that_import_each_other_are_listed_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("import a\n")
    assert program_files(tmp_path / "a.py") == [str(tmp_path / "a.py"), str(tmp_path / "b.py")]
