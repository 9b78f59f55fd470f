"""The commit that results name: of this checkout, of the archive that it came from, or none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHOW = "from scripts.report.commit import current_commit as c; print(c().name, c().is_dirty)"


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """This repository's programs within another repository, which has a commit."""
    shutil.copytree(root / "scripts", tmp_path / "outer/copy/scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitattributes", ".git_archival.txt"):
        shutil.copy(root / name, tmp_path / "outer/copy" / name)
    commit(tmp_path / "outer")
    return tmp_path / "outer/copy"


def commit(directory: Path) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *words], cwd=directory, check=True, capture_output=True)
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=directory, check=True, capture_output=True, text=True
    ).stdout.strip()


def shown(directory: Path, **variables: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=directory, env=os.environ | {"PYTHONPATH": str(directory)} | variables,
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return finished.stdout.strip()


def test_a_copy_within_another_repository_does_not_name_its_commit(copy: Path) -> None:
    assert shown(copy) == "unknown False"


def test_an_unpacked_archive_knows_its_commit(copy: Path, tmp_path: Path) -> None:
    name = commit(copy)
    (tmp_path / "unpacked").mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=copy, check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract"], cwd=tmp_path / "unpacked", check=True, input=archive)
    assert shown(tmp_path / "unpacked") == f"{name} False"


def test_a_checkout_names_its_commit_and_what_is_not_committed(copy: Path) -> None:
    name = commit(copy)
    assert shown(copy, GIT_DIR=str(copy.parent / ".git")) == f"{name} False"
    (copy / ".gitattributes").write_text("# changed\n")
    assert shown(copy) == f"{name} True"


@pytest.mark.skipif(os.getuid() != 0, reason="gives a directory to another user, which root alone may")
def test_a_checkout_of_another_user_names_its_commit(copy: Path) -> None:
    name = commit(copy)
    subprocess.run(["chown", "--recursive", "4242", copy], check=True)
    assert shown(copy) == f"{name} False"


def test_without_git_there_is_no_commit(copy: Path, tmp_path: Path) -> None:
    commit(copy)
    assert shown(copy, PATH=str(tmp_path)) == "unknown False"
