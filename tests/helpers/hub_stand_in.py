"""A stand-in for the two model hubs: directories served as models, over the few requests that their libraries make.

It is no hub: it shows that a download arrives, is narrowed to the needed files, goes on after a break and fails clearly.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubStandIn(ThreadingHTTPServer):
    """Serves each directory of `models` under its id; `paths` are the requested ones; the file `stalled` stops half-way."""

    daemon_threads = True

    def __init__(self, models: Mapping[str, Path]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = models
        self.paths: list[str] = []
        self.stalled: str | None = None
        self.closing = Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked_for(self, name: str) -> list[str]:
        """The requests for one file."""
        return [path for path in self.paths if path.endswith((f"/{name}", f"={name}"))]

    def environment(self) -> dict[str, str]:
        """What makes both hubs' libraries come here, and nowhere else."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HUB_DISABLE_XET": "1",
            "MODELSCOPE_ENDPOINT": self.address,
            "NO_PROXY": "127.0.0.1",
        }


class Handler(BaseHTTPRequestHandler):
    server: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: what was asked is in `server.paths`."""

    def send_json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, path: Path) -> None:
        name, body = path.name, path.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        first = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(first.group(1)) if first else 0
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body) - begin))
        if first:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if name == self.server.stalled:
            self.wfile.write(body[begin : begin + (len(body) - begin) // 2])
            self.wfile.flush()
            self.server.closing.wait()
            self.close_connection = True
            return
        self.wfile.write(body[begin:])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        url = urlparse(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        for model_id, model_dir in self.server.models.items():
            if f"/{model_id}/" in f"{url.path}/":
                self.answer(url.path, query, model_id, model_dir)
                return
        self.send_json({"Code": 404, "Success": False, "Message": "not found", "error": "not found"}, status=404)

    def answer(self, path: str, query: Mapping[str, str], model_id: str, model_dir: Path) -> None:
        """What the libraries ask about one model."""
        files = sorted(file for file in model_dir.iterdir() if file.is_file())
        if path.startswith(f"/{model_id}/resolve/"):
            self.send_file(model_dir / path.rpartition("/")[2])
        elif path.startswith(f"/api/models/{model_id}/tree/"):
            self.send_json(
                [{"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40} for file in files]
            )
        elif path.startswith(f"/api/models/{model_id}"):
            self.send_json(
                {"id": model_id, "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files], "tags": []}
            )
        elif path == f"/api/v1/models/{model_id}/repo/files":
            entries = [
                {
                    "Name": file.name,
                    "Path": file.name,
                    "Type": "blob",
                    "Size": file.stat().st_size,
                    "Sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                    "Revision": COMMIT,
                }
                for file in files
            ]
            self.send_json({"Code": 200, "Success": True, "Data": {"Files": entries, "TotalCount": len(entries)}})
        elif path == f"/api/v1/models/{model_id}/repo":
            self.send_file(model_dir / query["FilePath"])
        else:
            self.send_json({"Code": 200, "Success": True, "Data": {"Name": model_id}})


@contextmanager
def hub_stand_in(models: Mapping[str, Path]) -> Iterator[HubStandIn]:
    """Runs the stand-in on a free port while the context lasts."""
    server = HubStandIn(models)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
