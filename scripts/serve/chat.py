"""Asks a checkpoint about pictures from the terminal: `swift infer` with the evaluation's settings.

In a question `<image>` stands for a picture, whose path is asked for then; `quit` ends. For example
  <<< <image>Which digit is this?
  Input an image path or URL <<< resources/data/digits/images/test-0000-0.png

By hand (also: make chat CHECKPOINT=results/demo/stage2/checkpoint):
  .venv/bin/python scripts serve.chat --config config/demo.yaml
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.common.errors import run_program
from scripts.common.root import ROOT
from scripts.common.swift import flag_arguments
from scripts.serve.server import model_arguments, server_environment
from scripts.serve.settings import require_servable

# What `swift deploy` has and `swift infer` has not (ms-swift 4.6.0, swift/arguments/deploy_args.py).
DEPLOY_ONLY_FLAGS = frozenset({
    "host", "port", "api_key", "ssl_keyfile", "ssl_certfile", "owned_by", "served_model_name", "verbose", "log_interval",
    "log_level", "max_logprobs",
})  # fmt: skip


def infer_command(python: Path, checkpoint_dir: Path, serve: Mapping[str, Any]) -> list[str]:
    """The command that asks `checkpoint_dir`; `serve` is the section of the configuration."""
    flags = {"temperature": 0, "stream": True}
    flags |= {name: value for name, value in serve["flags"].items() if name not in DEPLOY_ONLY_FLAGS}
    flags |= {"infer_backend": serve["backend"], **model_arguments(checkpoint_dir, ROOT)}
    return [str(python), "-m", "swift.cli.infer", *flag_arguments(flags)]


def main() -> None:
    """Becomes `swift infer`, so that the terminal and its signals are its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint-dir", required=True, type=Path)
    parser.add_argument("--serve", required=True, type=json.loads, metavar="JSON", help="the config's evaluate.serve")
    parser.add_argument("--serve-python", required=True, type=Path, help="interpreter of the server's environment")
    arguments = parser.parse_args()
    require_servable(arguments.checkpoint_dir, arguments.serve_python)
    command = infer_command(arguments.serve_python.absolute(), arguments.checkpoint_dir.absolute(), arguments.serve)
    os.execve(command[0], command, server_environment(os.environ, ROOT, arguments.serve))


if __name__ == "__main__":
    run_program(main)
