"""What stands in a file's place is named, and never waited for."""

import os
import re
from pathlib import Path

import pytest

from helpers.rubbish import put
from scripts.common.errors import UserError
from scripts.common.input_files import file_fault, read_input_bytes, read_input_text, read_json, read_section


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("a directory", "is a directory"),
        ("a link to itself", "cannot be reached (Too many levels of symbolic links)"),
        ("a link to nothing", "not found"),
        ("a pipe", "is a pipe, a socket or a device"),
    ],
)
def test_what_is_no_file_is_named_with_what_is_expected_there(tmp_path: Path, kind: str, fault: str) -> None:
    path = tmp_path / "a.json"
    put(kind, path)
    assert file_fault(path) == fault
    expected = re.escape(f"{path}: {fault}; expected a table; make it again")
    for read in (read_input_bytes, read_input_text):
        with pytest.raises(UserError, match=f"^{expected}$"):
            read(path, "a table", "make it again")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a" * 256, "cannot be reached (File name too long)"),
        ("a/" * 2100, "cannot be reached (File name too long)"),
        ("a\0b", "has a name that no file can have, or none in UTF-8"),
        ("\ud800", "has a name that no file can have, or none in UTF-8"),
        ("there/below", "not found"),
    ],
    ids=["a long name", "a long path", "NUL", "half a character", "below a file"],
)
def test_a_name_that_cannot_be_one_is_a_fault_and_no_error(tmp_path: Path, name: str, fault: str) -> None:
    (tmp_path / "there").write_text("")
    assert file_fault(f"{tmp_path}/{name}") == fault


def test_a_file_and_a_link_to_it_have_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("é\r\n".encode())
    (tmp_path / "link").symlink_to("a")
    assert file_fault(tmp_path / "a") is file_fault(str(tmp_path / "link")) is None
    assert read_input_text(tmp_path / "link", "a text", "write it") == "é\r\n"


def test_bytes_that_are_no_text_are_named_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc\xff")
    with pytest.raises(UserError, match=r"not UTF-8 text \(invalid start byte at byte 3\); expected a text"):
        read_input_text(tmp_path / "a", "a text", "write it")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every file")
def test_a_file_of_somebody_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "a").chmod(0)
    with pytest.raises(UserError, match=r"a: cannot be read \(Permission denied\); expected a text; ask its owner"):
        read_input_bytes(tmp_path / "a", "a text", "ask its owner")


def test_json_of_another_form_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1, "a": 2}')
    with pytest.raises(
        UserError, match=rf"^{path}: not valid JSON \(key 'a' found twice in one section\); fetch or make"
    ):
        read_json(path)
    path.write_text("[1]")
    assert read_json(path) == [1]
    with pytest.raises(UserError, match=rf"^{path}: list found; expected a section of keys"):
        read_section(path)
