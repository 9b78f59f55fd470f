"""Serves a checkpoint for people: an OpenAI-compatible endpoint on 127.0.0.1, until Ctrl-C.

The server is the one that evaluations use (`swift deploy`), with the same settings (`evaluate.serve`). It is announced only
after it has answered a first question about a picture with finite probabilities: weights of NaN never get that far.

By hand (also: make serve CHECKPOINT=results/demo/stage2/checkpoint):
  .venv/bin/python scripts serve.serve --config config/demo.yaml
"""

import argparse
import dataclasses
import json

from scripts.common.errors import run_program
from scripts.common.logger import log
from scripts.serve.command import Serving, add_arguments
from scripts.serve.ready_server import POLL_S, ready_server, stop_on_signals
from scripts.serve.server import ModelServer
from scripts.serve.settings import ServeSettings


def announcement(server: ModelServer) -> str:
    """The address, and a command that asks it."""
    body = {"model": server.served_name, "messages": [{"role": "user", "content": "Hello"}]}
    return (
        f"ready: {server.base_url} serves {server.served_name} (OpenAI-compatible; log: {server.log_path}); Ctrl-C ends it\n"
        f"  curl {server.base_url}/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )


def main() -> None:
    """Serves until a signal; 0 when it was ended by one, 1 when the server died."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--port", type=int, help="instead of one that the kernel chooses")
    arguments = parser.parse_args()
    settings: ServeSettings = arguments.serve
    if arguments.port is not None:
        settings = dataclasses.replace(settings, flags={**settings.flags, "port": arguments.port})
    stop = stop_on_signals()
    serving = Serving(arguments.serve_python.absolute(), arguments.checkpoint_dir.absolute(), settings)
    with ready_server(serving, stop) as server:
        if server:
            log(announcement(server))
            while not stop.wait(POLL_S):
                server.require_alive()
    log("ended")


if __name__ == "__main__":
    run_program(main)
