"""A directory that a program makes is the earlier one or the new one, wherever the program is killed."""

import shutil
from pathlib import Path

import pytest

from helpers.kills import killed_at_each_removal
from scripts.common.errors import UserError
from scripts.demo.whole_directory import whole_directory

NAMES = ("a.bin", "b.bin")


def make(directory: Path, content: str) -> None:
    with whole_directory(directory, NAMES) as temporary:
        for name in NAMES:
            (temporary / name).write_text(content)


def test_wherever_it_is_killed_the_directory_is_whole_and_the_next_run_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "parent" / "made"

    def make_an_earlier_one() -> None:
        shutil.rmtree(directory.parent, ignore_errors=True)
        make(directory, "earlier")

    contents = set()
    for _ in killed_at_each_removal(lambda: make(directory, "new"), make_an_earlier_one, monkeypatch):
        found = [path.read_text() for path in sorted(directory.iterdir())] if directory.exists() else []
        assert found in (["earlier"] * 2, ["new"] * 2, [])
        contents.add(tuple(found))
        make(directory, "again")
        assert [path.read_text() for path in directory.iterdir()] == ["again"] * 2
        assert [path.name for path in directory.parent.iterdir()] == ["made"]
    assert len(contents) == 3


def test_a_file_of_somebody_else_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt: not made by this program"):
        make(tmp_path / "made", "new")
    assert (tmp_path / "made/notes.txt").read_text() == "mine"
