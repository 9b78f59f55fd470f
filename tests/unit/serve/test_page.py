"""What the page in the browser sends of a question and of what was said before, and what it shows where nothing comes back."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.serve.page import ask, messages_of
from scripts.train.ports import free_port


@pytest.fixture
def picture_path(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    return tmp_path / "a.jpg"


def shown(picture_path: Path) -> dict[str, Any]:
    content = base64.b64encode(picture_path.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{content}"}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_pictures_are_sent_as_they_were_given_and_before_their_text(picture_path: Path) -> None:
    asked = messages_of([], "What is it?", [str(picture_path), str(picture_path)])
    assert asked == [
        {"role": "user", "content": [shown(picture_path), shown(picture_path), text("What is it?")]},
    ]
    assert messages_of([], "  ", [str(picture_path)]) == [{"role": "user", "content": [shown(picture_path)]}]


def test_what_was_said_before_is_sent_again_with_its_pictures_in_the_same_message(picture_path: Path) -> None:
    """gradio keeps each picture as a message of its own, and a text as a part or as itself."""
    history = [
        {"role": "user", "content": [{"type": "file", "file": {"path": str(picture_path)}}]},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A digit."},
    ]
    assert messages_of(history, "Which?", []) == [
        {"role": "user", "content": [shown(picture_path), text("What is it?")]},
        {"role": "assistant", "content": [text("A digit.")]},
        {"role": "user", "content": [text("Which?")]},
    ]


class Answering(BaseHTTPRequestHandler):
    """Repeats the model and the last question; refuses one that says so."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"][-1]["text"]
        said: dict[str, Any] = {
            "choices": [{"message": {"content": f"{body['model']}: {text} at {body['temperature']}"}}]
        }
        self.send_response(400 if text == "refuse" else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"message": "too long"} if text == "refuse" else said).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_the_server_is_asked_as_in_the_chat_and_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port('127.0.0.1')}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base_url = f"http://127.0.0.1:{server.server_port}/v1"
        assert ask(base_url, "m", messages_of([], "Which?", [])) == "m: Which? at 0"
        with pytest.raises(UserError, match=r"refused \(HTTP 400\): too long"):
            ask(base_url, "m", messages_of([], "refuse", []))
        server.shutdown()


def test_a_server_that_is_gone_is_said() -> None:
    with pytest.raises(UserError, match=r"did not answer .*refused"):
        ask(f"http://127.0.0.1:{free_port('127.0.0.1')}/v1", "m", messages_of([], "a", []))
