"""A stand-in for the interpreter of the serve environment, for faults that a real model server cannot be asked for.

Called as `THIS -m swift.cli.deploy --port N --served_model_name X …` it answers like `swift deploy`, without a model;
called as `THIS -c CODE NAMES` it names versions. The variable STAND_IN holds its behaviour as JSON:

  fails_on      text; a question that holds it gets HTTP 500
  dies_after    number of answers after which it dies, with an error on stderr
  delay_s       how long an answer takes
  logprob       of each token (-0.5)
  crashes       dies before it listens
  never_ready   /health says 503
  state_path    gets a line `start` for each start and a line for each question asked, its text as JSON
  num_sick_starts   `fails_on`, `dies_after` and `delay_s` hold for so many starts only (`state_path` counts them)

A question that holds `[silence]` is answered by nothing, one that holds `[cut off]` by an answer that is cut off, one
without a picture by C, any other by B.
"""

import json
import math
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BEHAVIOUR: dict[str, Any] = json.loads(os.environ.get("STAND_IN", "{}"))
num_answers = 0
lock = threading.Lock()


def note(line: str) -> int:
    """Adds a line to the state; returns how many starts it has seen."""
    if "state_path" not in BEHAVIOUR:
        return 0
    path = Path(BEHAVIOUR["state_path"])
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return path.read_text(encoding="utf-8").split("\n").count("start")


def die(reason: str) -> None:
    print(f"RuntimeError: {reason}", file=sys.stderr, flush=True)
    os._exit(3)


class Handler(BaseHTTPRequestHandler):
    served_name = ""

    def log_message(self, *arguments: object) -> None:
        pass

    def reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.path == "/health":
            self.reply(503 if BEHAVIOUR.get("never_ready") else 200, None)
        else:
            self.reply(200, {"data": [{"id": self.served_name}]})

    def do_POST(self) -> None:
        global num_answers
        request = self.rfile.read(int(self.headers["Content-Length"])).decode()
        content = json.loads(request)["messages"][-1]["content"]
        texts = [part["text"] for part in content if part["type"] == "text"] if isinstance(content, list) else [content]
        note(json.dumps(" ".join(texts)))
        time.sleep(BEHAVIOUR.get("delay_s", 0))
        if BEHAVIOUR.get("fails_on", "\0") in request:
            self.reply(500, {"object": "error", "message": "the stand-in fails on this question"})
            return
        with lock:
            num_answers += 1
            if num_answers > BEHAVIOUR.get("dies_after", math.inf):
                die("the stand-in died half-way")
        letter = "B" if "image_url" in request else "C"
        choice = {
            "message": {"role": "assistant", "content": "" if "[silence]" in request else letter},
            "finish_reason": "length" if "[cut off]" in request else "stop",
            "logprobs": {"content": [{"token": "B", "logprob": BEHAVIOUR.get("logprob", -0.5)}]},
        }
        about = {"id": "0", "object": "chat.completion", "created": 0, "model": self.served_name}
        self.reply(200, {**about, "choices": [{"index": 0, **choice}]})


def main() -> None:
    if sys.argv[1] == "-c":
        required, _optional = json.loads(sys.argv[3])
        print(json.dumps(dict.fromkeys(required, "stand-in")))
        return
    flags = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True))
    if BEHAVIOUR.get("crashes"):
        die("the stand-in died while it loaded")
    if note("start") > BEHAVIOUR.get("num_sick_starts", math.inf):
        for fault in ("fails_on", "dies_after", "delay_s"):
            BEHAVIOUR.pop(fault, None)
    Handler.served_name = flags["--served_model_name"]
    ThreadingHTTPServer((flags["--host"], int(flags["--port"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
