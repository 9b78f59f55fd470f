"""Files are whole or absent, whoever writes them."""

from pathlib import Path

import pytest

from scripts.common.files import (
    move_into_place,
    open_atomically,
    open_binary_atomically,
    temporary_for,
    write_bytes_atomically,
)


def test_a_text_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    with open_atomically(path) as file:
        file.write("first\n")
        assert not path.exists()
        file.write("second\n")
    assert path.read_text() == "first\nsecond\n"
    assert [found.name for found in path.parent.iterdir()] == ["page.html"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(RuntimeError), open_atomically(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_are_written_in_blocks_or_at_once(tmp_path: Path) -> None:
    with open_binary_atomically(tmp_path / "blocks") as file:
        file.write(b"\x00\xff")
        file.write(b"\r\n")
    write_bytes_atomically(tmp_path / "once", b"\x00\xff\r\n")
    write_bytes_atomically(tmp_path / "unsynced", b"\x00\xff\r\n", is_synced=False)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"\x00\xff\r\n"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocks", "once", "unsynced"]


def test_another_program_may_write_the_file(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    with temporary_for(path) as temporary:
        temporary.write_text("image")
        assert not path.exists()
    assert path.read_text() == "image"


def test_a_program_that_wrote_no_file_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), temporary_for(tmp_path / "image.sif"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_finished_download_replaces_what_had_its_name(tmp_path: Path) -> None:
    part_path, path = tmp_path / "table.tsv.part", tmp_path / "table.tsv"
    part_path.write_text("new")
    path.write_text("old")
    move_into_place(part_path, path)
    assert path.read_text() == "new"
    assert not part_path.exists()
