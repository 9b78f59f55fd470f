"""Asks a checkpoint about pictures from the terminal, by the evaluation's server and settings.

`<image>` in a question marks the place of a picture, whose path is asked for next. What was said before is part of the next
question; `clear` forgets it, `quit` ends. Pictures are shown to the model as a person sees them (scripts/data/seen_pictures.py).
  question <<< <image>Which digit is this?
  picture  <<< resources/data/digits/images/test-0000-0.png

By hand (also: make chat CHECKPOINT=results/demo/stage2/checkpoint):
  .venv/bin/python scripts serve.chat --config config/demo.yaml
"""

import argparse
import base64
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.common.errors import UserError, run_program
from scripts.common.input_files import require_file
from scripts.common.logger import log
from scripts.common.processes import STOP_SIGNALS
from scripts.data.seen_pictures import seen
from scripts.donors.library_errors import in_one_line
from scripts.serve.command import Serving, add_arguments
from scripts.serve.ready_server import ready_server, stop_on_signals
from scripts.serve.server import ModelServer

PICTURE_TAG = "<image>"
Message = dict[str, Any]


def picture_part(path: Path) -> Message:
    """The part of a message that shows a picture; raises UserError when it cannot be read."""
    require_file(path, "a picture", "give the path of one")
    try:
        with Image.open(path) as picture:
            content = seen(picture).png()
    except Exception as error:  # decoders raise whatever they meet in the file
        raise UserError(
            f"{path}: cannot be read ({in_one_line(error)}); expected a picture; give the path of one"
        ) from None
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(content).decode()}"}}


def asked_picture(read: Callable[[str], str]) -> Message | None:
    """Asks for a path until it is one of a picture; None for an empty line."""
    while path := read("picture  <<< ").strip():
        try:
            return picture_part(Path(path).expanduser())
        except UserError as error:
            print(f"{error}; an empty line drops the question", flush=True)
    return None


def question_parts(question: str, read: Callable[[str], str]) -> list[Message] | None:
    """The parts of a question: its texts, with a picture at each tag. None where a picture was not given."""
    first, *others = question.split(PICTURE_TAG)
    parts: list[Message] = [{"type": "text", "text": first}] if first.strip() else []
    for text in others:
        picture = asked_picture(read)
        if picture is None:
            return None
        parts.append(picture)
        parts += [{"type": "text", "text": text}] if text.strip() else []
    return parts


def answers(ask: Callable[[list[Message]], str], read: Callable[[str], str]) -> Iterator[str]:
    """What the model says to each question, or why a question could not be asked; ends with `quit` or the end of the input."""
    said: list[Message] = []
    while True:
        try:
            question = read("question <<< ").strip()
            if question == "quit":
                return
            if question in ("clear", ""):
                said = [] if question else said
                continue
            parts = question_parts(question, read)
        except EOFError:
            return
        if parts is None:
            continue
        asked = [*said, {"role": "user", "content": parts}]
        try:
            answer = ask(asked)
        except UserError as error:
            yield f"not answered: {error}"
            continue
        said = [*asked, {"role": "assistant", "content": answer}]
        yield answer


def asker(server: ModelServer) -> Callable[[list[Message]], str]:
    def ask(messages: list[Message]) -> str:
        server.require_alive()
        answer = server.ask({"messages": messages, "temperature": 0})
        return str(answer["choices"][0]["message"]["content"])

    return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    arguments = parser.parse_args()
    serving = Serving(arguments.serve_python.absolute(), arguments.checkpoint_dir.absolute(), arguments.serve)
    with ready_server(serving, stop_on_signals()) as server:
        # Waiting for a line is not ended by a flag.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.default_int_handler)
        if server:
            log(
                f"ready; {PICTURE_TAG} in a question asks for a picture's path, `clear` forgets what was said, `quit` ends"
            )
            with contextlib.suppress(KeyboardInterrupt):
                for answer in answers(asker(server), input):
                    print(answer, flush=True)
    log("ended")


if __name__ == "__main__":
    run_program(main)
