"""A benchmark is fetched whole or not at all, goes on where it broke off, and never replaces a file."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.questions.fetch_benchmark import fetch

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; notes the ranges that were asked for, and can break off once or ignore ranges."""

    ranges: list[str | None]
    breaks_off_at: int | None = None
    knows_ranges = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = self.server.breaks_off_at or len(CONTENT)
        self.wfile.write(CONTENT[start:end])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.ranges = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/BENCH.tsv"


def test_a_benchmark_is_fetched_and_checked(url: str, tmp_path: Path) -> None:
    fetch(url, MD5, tmp_path / "resources/BENCH.tsv")
    assert (tmp_path / "resources/BENCH.tsv").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "resources").iterdir()] == ["BENCH.tsv"]


def test_a_download_that_broke_off_goes_on_where_it_was(server: Server, url: str, tmp_path: Path) -> None:
    server.breaks_off_at = 100_000
    with pytest.raises(UserError, match=r"broke off.*goes on from"):
        fetch(url, MD5, tmp_path / "BENCH.tsv")
    assert not (tmp_path / "BENCH.tsv").exists()
    server.breaks_off_at = None
    fetch(url, MD5, tmp_path / "BENCH.tsv")
    assert server.ranges == [None, "bytes=100000-"]
    assert (tmp_path / "BENCH.tsv").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(server: Server, url: str, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "BENCH.tsv.part").write_bytes(CONTENT[:5000])
    fetch(url, MD5, tmp_path / "BENCH.tsv")
    assert (tmp_path / "BENCH.tsv").read_bytes() == CONTENT


def test_a_part_that_is_whole_is_only_checked(url: str, tmp_path: Path) -> None:
    (tmp_path / "BENCH.tsv.part").write_bytes(CONTENT)
    fetch(url, MD5, tmp_path / "BENCH.tsv")
    assert (tmp_path / "BENCH.tsv").read_bytes() == CONTENT


def test_another_file_in_its_place_is_refused_with_both_md5s_and_left(server: Server, url: str, tmp_path: Path) -> None:
    (tmp_path / "BENCH.tsv").write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{hashlib.md5(b'mine').hexdigest()} found, {MD5} expected"):
        fetch(url, MD5, tmp_path / "BENCH.tsv")
    assert (tmp_path / "BENCH.tsv").read_bytes() == b"mine"
    assert server.ranges == []


def test_a_file_that_is_right_already_is_not_fetched(server: Server, url: str, tmp_path: Path) -> None:
    (tmp_path / "BENCH.tsv").write_bytes(CONTENT)
    fetch(url, MD5, tmp_path / "BENCH.tsv")
    assert server.ranges == []


def test_a_download_with_another_md5_is_thrown_away(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"md5 {MD5} found, 0{MD5[1:]} expected"):
        fetch(url, f"0{MD5[1:]}", tmp_path / "BENCH.tsv")
    assert list(tmp_path.iterdir()) == []
