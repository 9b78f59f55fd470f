"""Asks a checkpoint about pictures from a page in the browser, by the evaluation's server and settings.

The page is gradio's, on 127.0.0.1. Pictures are dropped into it, and shown to the model as a person sees them
(scripts/data/seen_pictures.py). What was said before is part of the next question.

By hand (also: make app CHECKPOINT=results/demo/stage2/checkpoint):
  .venv/bin/python scripts serve.app --config config/demo.yaml
"""

import argparse
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.logger import log
from scripts.common.root import ROOT
from scripts.serve.child_processes import process_group
from scripts.serve.command import HOST, Serving, add_arguments
from scripts.serve.ready_server import POLL_S, ready_server, stop_on_signals
from scripts.serve.server import ModelServer, is_port_answered, last_error, require_free_port
from scripts.train.ports import free_port

# gradio asks its makers for news and sends them how it is used, where nobody tells it not to.
SILENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}


def page_command(python: Path, server: ModelServer, title: str, port: int) -> list[str]:
    """The command of the page's process."""
    options = {"base-url": server.base_url, "served-name": server.served_name, "title": title, "port": port}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [str(python), str(ROOT / "scripts"), "serve.page", *words]


def page_environment(inherited: Mapping[str, str], directory: Path) -> dict[str, str]:
    """Uploaded pictures are kept in this run's directory alone."""
    return {**inherited, **SILENT, "GRADIO_TEMP_DIR": str(directory / "pictures")}


def main() -> None:
    """Serves until a signal; 0 when it was ended by one, 1 when the server or the page died."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--app-python", required=True, type=Path, help="interpreter of the page's environment")
    parser.add_argument("--port", type=int, help="of the page, instead of one that the kernel chooses")
    arguments = parser.parse_args()
    python = arguments.app_python.absolute()  # not resolved: a virtual environment's interpreter is a link
    if not python.exists():
        raise UserError(
            f"{python}: not found; expected the page's environment; build it: snakemake --cores all {python.parent.parent}.ok"
        )
    if arguments.port is not None:
        require_free_port(arguments.port, "--port")  # before the model is loaded
    stop = stop_on_signals()
    serving = Serving(arguments.serve_python.absolute(), arguments.checkpoint_dir.absolute(), arguments.serve)
    with ready_server(serving, stop) as server:
        if server:
            directory = server.log_path.parent
            log_path = directory / "page.log"
            port = free_port(HOST) if arguments.port is None else arguments.port
            command = page_command(python, server, str(arguments.checkpoint_dir), port)
            with process_group(command, page_environment(os.environ, directory), directory, log_path) as page:
                is_announced = False
                while not stop.wait(POLL_S):
                    server.require_alive()
                    if page.poll() is not None:
                        raise UserError(f"{log_path}: the page ended: {last_error(log_path)}; see this file")
                    if not is_announced and is_port_answered(port):
                        is_announced = True
                        log(
                            f"ready: http://{HOST}:{port} in a browser of this machine (of another one: ssh -L "
                            f"{port}:{HOST}:{port} {socket.gethostname()}); Ctrl-C ends it"
                        )
    log("ended")


if __name__ == "__main__":
    run_program(main)
