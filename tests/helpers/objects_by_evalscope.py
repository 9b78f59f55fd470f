"""Makes EvalScope's samples and outputs where EvalScope is, and says what became of them, as JSON on the last line.

Called as `.venvs/evaluate/bin/python THIS DIRECTORY OWN.tsv OPEN.tsv` with the repository on PYTHONPATH.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas
from evalscope.api.dataset import Sample
from evalscope.api.messages import ChatMessageSystem, ChatMessageUser, ContentImage, ContentText
from evalscope.api.model import ModelOutput, get_model_with_task_config

from scripts.evaluate.run_native import answer_of, require_content, task_config
from scripts.evaluate.settings import NativeSettings
from scripts.evaluate.task_file import HarnessTask, Round
from scripts.questions.native_samples import row_of, samples_of
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import read_benchmark, write_benchmark

SETTINGS = NativeSettings(
    batch_size=1,
    choice_prompt="Q: {question}\n{options}\nOne of {letters}; {{braces}}.",
    hub="modelscope",
    max_tokens=8,
    open_prompt="{question} Say it.",
    temperature=0.0,
)
# What the server says, by the text that it is asked.
REPLIES: dict[str, tuple[int, Any]] = {
    "whole": (200, {"message": {"role": "assistant", "content": "B"}, "finish_reason": "stop"}),
    "cut": (200, {"message": {"role": "assistant", "content": "B or"}, "finish_reason": "length"}),
    "empty": (200, {"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}),
    "null": (200, {"message": {"role": "assistant", "content": None}, "finish_reason": "stop"}),
    "filtered": (200, {"message": {"role": "assistant", "content": "B"}, "finish_reason": "content_filter"}),
    "too long": (400, "maximum context length exceeded"),  # EvalScope makes an answer of this one
    "wrong": (400, "no such parameter"),
}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
        status, said = REPLIES[asked]
        about = {"id": "0", "object": "chat.completion", "created": 0, "model": "m"}
        body = {**about, "choices": [{"index": 0, **said}]} if status == 200 else {"error": {"message": said}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def content_of(sample: Any) -> dict[str, Any]:
    """Everything but the messages' ids, which EvalScope draws at random."""
    content: dict[str, Any] = sample.model_dump()
    for message in content["input"]:
        message.pop("id")
    return content


def own_samples(path: Path, is_blind: bool) -> list[Any]:
    table = read_benchmark(path)
    asked = samples_of(table.to_dict("records"), pictures_of(table, path), SETTINGS.prompt, is_blind=is_blind)
    return [[each.index, each.subset, each.sample.model_dump(mode="json", exclude_none=True)] for each in asked]


def samples(picture: str) -> list[Sample]:
    """Of every form that EvalScope's adapters make."""
    image = ContentImage(image=f"data:image/jpeg;base64,{picture}")
    two = ContentImage(image=f"data:image/png;base64,{picture[::-1]}")
    between = [ContentText(text="Look: "), image, ContentText(text=" and\t“there”\u2028"), two, ContentText(text="?")]
    return [
        Sample(input=[ChatMessageUser(content=[ContentText(text="Which?"), image])], choices=["1", "2"], target="B"),
        Sample(
            input=[ChatMessageSystem(content="Be short."), ChatMessageUser(content=between)],
            target=["Ada", "Lovelace"],
            subset_key="validation",
            metadata={"id": "q_1", "nested": {"pages": [1, 2.5]}, "says": "picture:0"},
        ),
        Sample(input=[ChatMessageUser(content="No picture.")], choices=["yes", "no"], target="A"),
    ]


def comes_back(given: list[Sample], directory: Path, is_blind: bool) -> list[Any]:
    """What the samples are after their way through a table."""
    rows = [row_of(str(number), "default", "test", sample) for number, sample in enumerate(given)]
    path = directory / "native.tsv"
    write_benchmark(pandas.DataFrame(rows).fillna(""), path)
    table = read_benchmark(path, needs_pictures=False)
    asked = samples_of(table.to_dict("records"), pictures_of(table, path), SETTINGS.prompt, is_blind=is_blind)
    return [each.sample for each in asked]


def answers(directory: Path) -> dict[str, str]:
    """What becomes of each reply: the answer, or why it is none."""
    said = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        task = HarnessTask("docvqa", "", "", True, False, "m", SETTINGS, [], "", [])
        url = f"http://127.0.0.1:{server.server_port}/v1"
        model = get_model_with_task_config(task_config("docvqa", task, Round(0, "key", "", "", str(directory)), url))
        model.api.on_response = require_content
        for asked in REPLIES:
            try:
                answer = answer_of("7", model.generate([ChatMessageUser(content=asked)]))
                said[asked] = f"{answer.prediction}|{answer.finish_reason}"
            except Exception as error:
                said[asked] = f"{type(error).__name__}: {error}"
        server.shutdown()
    try:
        answer_of("7", ModelOutput(model="m"))
    except ValueError as error:
        said["no choices"] = str(error)
    return said


def main() -> None:
    directory, choice_path, open_path = map(Path, sys.argv[1:])
    picture = read_benchmark(choice_path)["image"][0]
    given = samples(picture)
    for number, sample in enumerate(given):
        sample.id = sample.group_id = number
    blind = comes_back(given, directory, is_blind=True)
    result = {
        "choices": own_samples(choice_path, is_blind=False),
        "blind choices": own_samples(choice_path, is_blind=True),
        "open": own_samples(open_path, is_blind=False),
        "same": [
            content_of(one) == content_of(other)
            for one, other in zip(given, comes_back(given, directory, is_blind=False), strict=True)
        ],
        "blind kinds": [[getattr(part, "type", "text") for part in each.input[-1].content] for each in blind[:2]],
        "blind text": blind[1].input[-1].text,
        "answers": answers(directory),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
