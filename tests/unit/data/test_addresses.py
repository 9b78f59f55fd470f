"""Pictures from the web are fetched once and stay what they were."""

import hashlib
from pathlib import Path

import pytest

from helpers.file_server import served
from scripts.common.errors import UserError
from scripts.data import addresses
from scripts.data.addresses import DIRECTORY_NAME, fetch_picture
from scripts.data.row_files import RowProblem


def test_a_picture_is_fetched_once_and_its_first_bytes_are_kept(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.png").write_bytes(b"first")
    with served(tmp_path / "web") as address:
        assert fetch_picture(f"{address}/a.png", tmp_path / "pictures") == b"first"
        (tmp_path / "web/a.png").write_bytes(b"another")
        assert fetch_picture(f"{address}/a.png", tmp_path / "pictures") == b"first"
    assert fetch_picture(f"{address}/a.png", tmp_path / "pictures") == b"first", "without the server"


def test_an_address_without_a_picture_is_a_problem_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    with served(tmp_path / "web") as address, pytest.raises(RowProblem, match=r"a\.png: HTTP 404"):
        fetch_picture(f"{address}/a.png", tmp_path / "pictures")


def test_what_was_fetched_and_is_another_file_now_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/a.png").write_bytes(b"first")
    with served(tmp_path / "web") as address:
        fetch_picture(f"{address}/a.png", tmp_path / "pictures")
    place = tmp_path / "pictures" / DIRECTORY_NAME / hashlib.sha256(f"{address}/a.png".encode()).hexdigest()
    place.write_bytes(b"another")
    with pytest.raises(UserError, match=r"sha256 .* expected of http.*remove"):
        fetch_picture(f"{address}/a.png", tmp_path / "pictures")
    place.unlink()
    with pytest.raises(UserError, match=r"of no file.*remove"):
        fetch_picture(f"{address}/a.png", tmp_path / "pictures")


def test_without_a_network_the_whole_ends_after_some_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_PAUSES_S", (0.0, 0.0))
    (tmp_path / "web").mkdir()
    with served(tmp_path / "web") as address:
        pass
    with pytest.raises(UserError, match=r"could not be fetched.*prefetch"):
        fetch_picture(f"{address}/a.png", tmp_path / "pictures")
