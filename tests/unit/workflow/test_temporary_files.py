"""A directory for temporary files that cannot be used is left for another."""

import os
import tempfile
from pathlib import Path

import pytest

from scripts.workflow.temporary_files import leave_full_directory


def test_another_directory_is_taken_where_the_usual_one_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)  # Python looks once
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not there"))
    leave_full_directory()
    assert os.environ["TMPDIR"] != str(tmp_path / "not there")
    assert Path(os.environ["TMPDIR"]).is_dir()


def test_a_directory_that_can_be_used_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", f"{tmp_path}/")
    leave_full_directory()
    assert os.environ["TMPDIR"] == f"{tmp_path}/"
