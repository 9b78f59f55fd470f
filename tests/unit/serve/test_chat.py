"""Questions from the terminal: what is sent of them, and what a wrong path or a refused question leaves."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from scripts.common.errors import UserError
from scripts.serve.chat import Message, answers


def reader(*lines: str) -> Callable[[str], str]:
    """Gives the lines of a person one by one, and then the end of the input."""
    left = list(lines)

    def read(_: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    return read


class Model:
    """Keeps what it is asked; its answers are numbered."""

    def __init__(self, refused: Sequence[int] = ()) -> None:
        self.asked: list[list[Message]] = []
        self.refused = refused

    def __call__(self, messages: list[Message]) -> str:
        self.asked.append(messages)
        if len(self.asked) in self.refused:
            raise UserError("the server refused it")
        return f"answer {len(self.asked)}"


@pytest.fixture
def picture_path(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def kinds(message: Message) -> list[str]:
    return [part["type"] for part in message["content"]]


def test_a_picture_stands_where_its_tag_stands(picture_path: Path) -> None:
    model = Model()
    assert list(answers(model, reader("Is <image> like <image>?", str(picture_path), str(picture_path)))) == [
        "answer 1"
    ]
    ((message,),) = model.asked
    assert kinds(message) == ["text", "image_url", "text", "image_url", "text"]
    assert [part["text"] for part in message["content"] if part["type"] == "text"] == ["Is ", " like ", "?"]


def test_what_was_said_is_part_of_the_next_question_until_it_is_cleared() -> None:
    model = Model()
    assert len(list(answers(model, reader("One?", "Two?", "", "clear", "Three?")))) == 3
    assert [len(messages) for messages in model.asked] == [1, 3, 1]
    assert model.asked[1][1] == {"role": "assistant", "content": "answer 1"}


def test_a_wrong_path_is_asked_for_again_and_an_empty_one_drops_the_question(
    picture_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("no picture")
    model = Model()
    wrong = [str(tmp_path / name) for name in ("none.png", "text.png", "")]
    lines = ["<image>What?", *wrong, str(picture_path), "<image>Which?", "", "Why?"]
    assert list(answers(model, reader(*lines))) == ["answer 1", "answer 2"]
    assert [kinds(messages[-1]) for messages in model.asked] == [["image_url", "text"], ["text"]]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[0].startswith(f"{wrong[0]}: not found; expected a picture")
    assert said[1].startswith(f"{wrong[1]}: cannot be read (")


def test_a_question_that_the_server_refuses_is_forgotten_and_ends_nothing() -> None:
    model = Model(refused=[1])
    said = list(answers(model, reader("Too long?", "Short?", "quit", "never read")))
    assert said == ["not answered: the server refused it", "answer 2"]
    assert len(model.asked[1]) == 1


def test_a_picture_is_shown_as_a_person_sees_it(tmp_path: Path) -> None:
    """A phone's photograph of 40 x 30 that is to be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30), "red").save(tmp_path / "phone.jpg", exif=exif)
    model = Model()
    list(answers(model, reader("<image>What?", str(tmp_path / "phone.jpg"))))
    address = model.asked[0][0]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))
    assert sent.size == (30, 40)
