"""The interpreter of the serve environment, whose server is a proxy of a real one and misbehaves at chosen questions.

Called as `THIS PYTHON -m swift.cli.deploy --port N …` it listens on N and passes everything on to a `swift deploy` that is
up already; called in any other way it becomes PYTHON. The variable PROXY holds what to do as JSON:

  server_port where that `swift deploy` listens
  state_path  a file that gets a line for each question asked, its text as JSON, and a line `start` for each start
  faults      a list of {text, fault, num_times}: what happens to a question whose text holds `text`:
                http_500, http_400   the server never sees it
                null        its answer's content is null
                not_json    its answer is no JSON
                cut         the connection ends in the middle of its answer
                slow        its answer comes after SLOW_S
                dies        this program ends, as a server that was killed
                renamed     the list of models has another model's name, whatever `text` is
              num_times is how often it happens, counted over all starts; for ever if absent
"""

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
SLOW_S = 5.0
BEHAVIOUR: dict[str, Any] = json.loads(os.environ.get("PROXY", "{}"))
lock = threading.Lock()


def note(line: str) -> None:
    with lock, Path(BEHAVIOUR["state_path"]).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def happening(text: str) -> str | None:
    """The fault that happens to this question now, if one does; counts it."""
    for fault in BEHAVIOUR["faults"]:
        if fault["text"] in text:
            line = f"fault {fault['text']}"
            with lock:
                path = Path(BEHAVIOUR["state_path"])
                num_before = path.read_text(encoding="utf-8").split("\n").count(line)
                if num_before >= fault.get("num_times", num_before + 1):
                    return None
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{line}\n")
            return str(fault["fault"])
    return None


def text_of(body: bytes) -> str:
    """The text of a request's last message."""
    content = json.loads(body)["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


class Proxy(BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass

    def forward(self, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, BEHAVIOUR["server_port"])
        try:
            connection.request(self.command, self.path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def reply(self, status: int, data: bytes, num_sent: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:num_sent])

    def do_GET(self) -> None:
        status, data = self.forward(None)
        if (
            any(fault["fault"] == "renamed" for fault in BEHAVIOUR["faults"])
            and status == 200
            and self.path.endswith("/models")
        ):
            data = data.replace(b"Qwen3-VL", b"another-model")
        self.reply(status, data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        text = text_of(body)
        note(json.dumps(text))
        fault = happening(text)
        if fault in ("http_500", "http_400"):
            self.reply(int(fault[-3:]), b'{"message": "the proxy refuses this question"}')
            return
        if fault == "dies":
            print("RuntimeError: the proxy died half-way", file=sys.stderr, flush=True)
            os._exit(3)
        if fault == "slow":
            time.sleep(SLOW_S)
        status, data = self.forward(body)
        if fault == "null":
            answer = json.loads(data)
            answer["choices"][0]["message"]["content"] = None
            data = json.dumps(answer).encode()
        if fault == "not_json":
            data = b"<html>Bad gateway</html>"
        if fault == "cut":
            self.reply(status, data, num_sent=len(data) // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.reply(status, data)


def main() -> None:
    command = sys.argv[1:]
    if command[1:3] != ["-m", "swift.cli.deploy"]:
        os.execv(command[0], command)
    note("start")
    own_port = int(command[command.index("--port") + 1])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    ThreadingHTTPServer((HOST, own_port), Proxy).serve_forever()


if __name__ == "__main__":
    main()
