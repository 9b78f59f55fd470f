"""Asks a checkpoint about pictures from the terminal: `swift infer` with the evaluation's settings.

`<image>` in a question marks the place of a picture, whose path is asked for next; `quit` ends. For example
  <<< <image>Which digit is this?
  Input an image path or URL <<< resources/data/digits/images/test-0000-0.png

By hand (also: make chat CHECKPOINT=results/demo/stage2/checkpoint):
  .venv/bin/python scripts serve.chat --config config/demo.yaml
"""

import argparse
import os
from typing import Any

from scripts.common.errors import run_program
from scripts.serve.command import Serving, add_arguments, model_arguments, server_environment
from scripts.train.declarations import checked_sha256
from scripts.train.swift_arguments import flag_arguments

# What `swift deploy` has and `swift infer` has not (ms-swift 4.6.0, swift/arguments/deploy_args.py).
DEPLOY_ONLY_FLAGS = frozenset({
    "host", "port", "api_key", "ssl_keyfile", "ssl_certfile", "owned_by", "served_model_name", "verbose", "log_interval",
    "log_level", "max_logprobs",
})  # fmt: skip


def infer_command(serving: Serving) -> list[str]:
    """The command that asks the checkpoint."""
    settings = serving.settings
    flags: dict[str, Any] = {"temperature": 0, "stream": True}
    flags |= {name: value for name, value in settings.flags.items() if name not in DEPLOY_ONLY_FLAGS}
    flags |= {"infer_backend": settings.backend, **model_arguments(serving.model_dir)}
    return [str(serving.python), "-m", "swift.cli.infer", *flag_arguments(flags)]


def main() -> None:
    """Becomes `swift infer`, so that the terminal and its signals are its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    arguments = parser.parse_args()
    serving = Serving(arguments.serve_python.absolute(), arguments.checkpoint_dir.absolute(), arguments.serve)
    serving.require_servable()
    checked_sha256(serving.model_dir)
    command = infer_command(serving)
    os.execve(command[0], command, server_environment(os.environ, serving.settings))


if __name__ == "__main__":
    run_program(main)
