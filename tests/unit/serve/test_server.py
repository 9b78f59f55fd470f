"""A server is watched while it starts and serves; its failures are reported with its last error."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.processes import wait_for
from scripts.common.errors import UserError
from scripts.serve.server import ModelServer, has_ended, last_error, require_free_port


def test_a_busy_port_is_refused_by_its_number() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(UserError, match=f"flags.port: {port} cannot be used"):
            require_free_port(port)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "loading\nTraceback (most recent call last):\n  x\nRuntimeError: out of memory\n",
            "RuntimeError: out of memory",
        ),
        ("torch.OutOfMemoryError: CUDA\nshutting down\n", "torch.OutOfMemoryError: CUDA"),
        ("a\nb\nc\nd\n", "b | c | d"),
        ("", "nothing was written"),
        (
            "(EngineCore pid=7) ERROR 11-26 02:09:31 [core.py:1503] ValueError: head_dim\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "ValueError: head_dim",
        ),
        (
            "INFO 1\nvllm.v1.engine.exceptions.EngineDeadError: x. See stack trace (above) for the root cause.\n",
            "vllm.v1.engine.exceptions.EngineDeadError: x. See stack trace (above) for the root cause.",
        ),
    ],
)
def test_the_last_error_of_a_log_is_the_exception_in_it(tmp_path: Path, log: str, expected: str) -> None:
    (tmp_path / "server.log").write_text(log)
    assert last_error(tmp_path / "server.log") == expected


@contextlib.contextmanager
def running(code: str) -> Iterator[psutil.Popen]:
    """A Python program that has said so, and ends with its children when the test does, however that ends."""
    with psutil.Popen(
        [sys.executable, "-c", f"{code}; print('started', flush=True); time.sleep(3600)"], stdout=subprocess.PIPE
    ) as process:
        try:
            process.stdout.readline()
            yield process
        finally:
            for each in [*process.children(), process]:
                each.kill()


def test_a_port_that_another_process_took_meanwhile_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "server.log").touch()
    with socket.socket() as other, running("import time") as loading:
        other.bind(("127.0.0.1", 0))
        server = ModelServer(loading, other.getsockname()[1], "model", tmp_path / "server.log", 60)
        assert not server.is_ready()
        other.listen()
        with pytest.raises(UserError, match="was taken by another process"):
            server.is_ready()


def test_a_server_without_the_process_that_computed_is_not_alive(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("RuntimeError: out of memory\n")
    with running("import subprocess, time; subprocess.Popen(['sleep', '3600'])") as leader:
        (engine,) = leader.children()
        server = ModelServer(leader, 1, "model", tmp_path / "server.log", 60, engines=[engine])
        server.require_alive()
        engine.kill()
        wait_for(lambda: has_ended(engine))
        with pytest.raises(UserError, match=f"its child process {engine.pid} is gone.*RuntimeError: out of memory"):
            server.require_alive()


@pytest.mark.parametrize(
    ("content", "is_sound"),
    [
        ([{"logprob": -0.5}], True),
        ([{"logprob": float("nan")}], False),
        ([{"logprob": None}], False),
        ([], False),
        (None, False),
    ],
)
def test_a_server_is_ready_once_its_first_answer_about_a_picture_has_a_finite_probability(
    tmp_path: Path, content: Any, is_sound: bool
) -> None:
    asked: list[Any] = []

    class Answering(ModelServer):
        def ask(self, body: Any, timeout_s: float = 300.0) -> dict[str, Any]:
            asked.append(body)
            return {"choices": [{"logprobs": None if content is None else {"content": content}}]}

    server = Answering(None, 1, "model", tmp_path / "server.log", 60)  # type: ignore[arg-type]
    if is_sound:
        server.require_sound_answer("cGljdHVyZQ==")
    else:
        with pytest.raises(UserError, match="the first question got no finite probability"):
            server.require_sound_answer("cGljdHVyZQ==")
    assert "base64,cGljdHVyZQ==" in json.dumps(asked)
