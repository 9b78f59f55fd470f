"""What the page in the browser sends of a question and of what was said before, and what it shows where nothing comes back."""

import base64
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


def test_a_server_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"did not answer .*refused"):
        ask(f"http://127.0.0.1:{free_port('127.0.0.1')}/v1", "m", messages_of([], "a", []))
