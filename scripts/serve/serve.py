"""Serves a checkpoint for people: an OpenAI-compatible endpoint on 127.0.0.1, until Ctrl-C.

The server is the one that evaluations use (`swift deploy`), with the same settings (`evaluate.serve`). It is announced only
after it has answered a first question about a picture with finite probabilities: weights of NaN never get that far.

By hand (also: make serve CHECKPOINT=results/demo/stage2/checkpoint):
  .venv/bin/python scripts serve.serve --config config/demo.yaml
"""

import argparse
import base64
import dataclasses
import io
import json
import os
import signal
import threading
import time
from pathlib import Path

from PIL import Image

from scripts.common.errors import run_program
from scripts.common.logger import log
from scripts.common.processes import STOP_SIGNALS
from scripts.common.units import duration
from scripts.serve.command import Serving, add_arguments
from scripts.serve.server import ModelServer, last_error, model_server
from scripts.serve.settings import ServeSettings
from scripts.train.declarations import checked_sha256

POLL_S = 0.5
SECONDS_BETWEEN_LINES = 10.0
SMOKE_PICTURE_PX = 112


def smoke_picture() -> str:
    """A grey square, as base64 PNG."""
    data = io.BytesIO()
    Image.new("RGB", (SMOKE_PICTURE_PX, SMOKE_PICTURE_PX), "grey").save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def announcement(server: ModelServer) -> str:
    """The address, and a command that asks it."""
    body = {"model": server.served_name, "messages": [{"role": "user", "content": "Hello"}]}
    return (
        f"ready: {server.base_url} serves {server.served_name} (OpenAI-compatible; log: {server.log_path}); Ctrl-C ends it\n"
        f"  curl {server.base_url}/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )


def wait_until_ready(server: ModelServer, stop: threading.Event) -> bool:
    """Whether it became ready before somebody stopped it; logs the server's last line meanwhile."""
    logged_s = time.monotonic()
    while not server.is_ready():
        if stop.wait(POLL_S):
            return False
        if time.monotonic() - logged_s > SECONDS_BETWEEN_LINES:
            logged_s = time.monotonic()
            log(f"loading for {duration(logged_s - server.started_s)}: {last_error(server.log_path)}")
    return True


def main() -> None:
    """Serves until a signal; 0 when it was ended by one, 1 when the server died."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--port", type=int, help="instead of one that the kernel chooses")
    arguments = parser.parse_args()
    settings: ServeSettings = arguments.serve
    if arguments.port is not None:
        settings = dataclasses.replace(settings, flags={**settings.flags, "port": arguments.port})
    serving = Serving(arguments.serve_python.absolute(), arguments.checkpoint_dir.absolute(), settings)
    serving.require_servable()
    log(f"{arguments.checkpoint_dir}: comparing it with what declares it")
    checked_sha256(serving.model_dir)
    stop = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    directory = Path.cwd() / "work" / "serve" / str(os.getpid())
    directory.mkdir(parents=True, exist_ok=True)
    with model_server(serving, os.environ, directory) as server:
        log(f"{arguments.checkpoint_dir}: loading, by {settings.backend}; log: {server.log_path}")
        if wait_until_ready(server, stop):
            server.require_sound_answer(smoke_picture())
            log(announcement(server))
            while not stop.wait(POLL_S):
                server.require_alive()
    log("ended")


if __name__ == "__main__":
    run_program(main)
