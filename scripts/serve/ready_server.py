"""The evaluation's server for people: started, watched while it loads, and given once it has answered a first question."""

import base64
import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image

from scripts.common.logger import log
from scripts.common.processes import STOP_SIGNALS
from scripts.common.root import ROOT
from scripts.common.units import duration
from scripts.serve.command import Serving
from scripts.serve.server import ModelServer, last_error, model_server
from scripts.train.declarations import checked_sha256

SEEN_PICTURES_PLUGIN = ROOT / "scripts/serve/seen_pictures_plugin.py"
POLL_S = 0.5
SECONDS_BETWEEN_LINES = 10.0
SMOKE_PICTURE_PX = 112


def smoke_picture() -> str:
    """A grey square, as base64 PNG."""
    data = io.BytesIO()
    Image.new("RGB", (SMOKE_PICTURE_PX, SMOKE_PICTURE_PX), "grey").save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def stop_on_signals() -> threading.Event:
    """Set by the first signal that asks this process to end."""
    stop = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop


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


@contextlib.contextmanager
def ready_server(serving: Serving, stop: threading.Event) -> Iterator[ModelServer | None]:
    """The server, which ends with the block; None where it was stopped while it loaded. UserError where it cannot answer."""
    serving.require_servable()
    serving = replace(serving, plugins=[SEEN_PICTURES_PLUGIN])
    log(f"{serving.model_dir}: comparing it with what declares it")
    checked_sha256(serving.model_dir)
    directory = Path.cwd() / "work" / "serve" / str(os.getpid())
    directory.mkdir(parents=True, exist_ok=True)
    with model_server(serving, os.environ, directory) as server:
        log(f"{serving.model_dir}: loading, by {serving.settings.backend}; log: {server.log_path}")
        is_ready = wait_until_ready(server, stop)
        if is_ready:
            server.require_sound_answer(smoke_picture())
        yield server if is_ready else None
