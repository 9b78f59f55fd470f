"""The page of serve.app: gradio's chat, which asks a model server at its address.

It runs in the environment `app`, the only one that has gradio.

By hand (a server must be up, as `make serve` announces it):
  .venvs/app/bin/python scripts serve.page --base-url http://127.0.0.1:8000/v1 --served-name stage2 --title stage2 --port 7860
"""

import argparse
import base64
import json
import mimetypes
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program

HOST = "127.0.0.1"
TIMEOUT_S = 300.0
NUM_SHOWN_CHARACTERS = 300
Message = dict[str, Any]


def picture_part(path: str) -> Message:
    """A picture as it was given: the server shows it as a person sees it."""
    kind = mimetypes.guess_type(path)[0] or "image/png"
    content = base64.b64encode(Path(path).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{content}"}}


def part_of(content: Any) -> Message:
    """A part of what gradio has kept: a text, or a file."""
    if isinstance(content, str):
        return {"type": "text", "text": content}
    if content["type"] == "text":
        return {"type": "text", "text": content["text"]}
    return picture_part(content["file"]["path"])


def messages_of(history: Sequence[Mapping[str, Any]], text: str, paths: Sequence[str]) -> list[Message]:
    """What was said and what is asked now, as an OpenAI-compatible server takes it: pictures before their text."""
    messages: list[Message] = []
    for said in history:
        contents = said["content"] if isinstance(said["content"], list) else [said["content"]]
        parts = [part_of(content) for content in contents]
        if messages and messages[-1]["role"] == said["role"]:  # gradio keeps each file of a question as a message
            messages[-1]["content"] += parts
        else:
            messages.append({"role": said["role"], "content": parts})
    question = [*map(picture_part, paths), *([{"type": "text", "text": text}] if text.strip() else [])]
    return [*messages, {"role": "user", "content": question}]


def ask(base_url: str, served_name: str, messages: Sequence[Message]) -> str:
    """The model's answer; raises UserError with the server's words when it refuses, or is gone."""
    body = json.dumps({"model": served_name, "messages": messages, "temperature": 0}).encode()
    request = urllib.request.Request(f"{base_url}/chat/completions", body, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=TIMEOUT_S) as response:
            return str(json.load(response)["choices"][0]["message"]["content"])
    except urllib.error.HTTPError as error:
        raise UserError(f"the model server refused (HTTP {error.code}): {_words(error.read())}") from None
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"the model server did not answer ({error})") from None


def _words(body: bytes) -> str:
    try:
        found = json.loads(body)
        return str(found.get("message") or found.get("detail") or found)[:NUM_SHOWN_CHARACTERS]
    except (ValueError, AttributeError):
        return body.decode(errors="replace")[:NUM_SHOWN_CHARACTERS]


def chat_page(answer: Callable[[Sequence[Message]], str], title: str) -> Any:
    """gradio's page; what cannot be answered is shown in its place, and what was said stays."""
    import gradio

    def reply(message: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
        try:
            return answer(messages_of(history, message["text"], message["files"]))
        except UserError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from None

    box = gradio.MultimodalTextbox(
        file_types=["image"], file_count="multiple", placeholder="A question; drop its pictures here"
    )
    said = gradio.Chatbot(show_label=False, buttons=["copy"])  # and none that sends it to a hub
    return gradio.ChatInterface(
        reply, multimodal=True, chatbot=said, textbox=box, title=title, flagging_mode="never", api_visibility="private"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base-url", required=True, help="of the model server")
    parser.add_argument("--served-name", required=True, help="of the model there")
    parser.add_argument("--title", required=True, help="what the page calls it")
    parser.add_argument("--port", required=True, type=int)
    arguments = parser.parse_args()
    page = chat_page(
        lambda messages: ask(arguments.base_url, arguments.served_name, messages), f"vlgraft: {arguments.title}"
    )
    page.launch(server_name=HOST, server_port=arguments.port, share=False, quiet=True, footer_links=[])


if __name__ == "__main__":
    run_program(main)
