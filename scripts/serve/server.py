"""`swift deploy` as a context manager: on 127.0.0.1, watched while it starts and while it serves, always ended.

with model_server(serving, environment, directory) as server:
    while not server.is_ready():
        time.sleep(0.2)
    server.ask({"messages": [...]})
"""

import contextlib
import http.client
import json
import math
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.serve.child_processes import process_group
from scripts.serve.command import HOST, Serving, deploy_command, server_environment
from scripts.train.exit_status import ending
from scripts.train.ports import free_port

_NUM_ERROR_LINES = 3

# "(EngineCore pid=7) ERROR 11-26 02:09:31 [core.py:1503] ", before each line of what vLLM's processes log.
_VLLM_PREFIX = re.compile(r"^(\(\w+ pid=\d+\) )?[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[\w.]+:\d+\] ")

# How vLLM's first process refers to the error of another one, which is logged before it.
_VLLM_POINTERS = ("See stack trace (above) for the root cause", "See root cause above")
_NUM_SHOWN_CHARACTERS = 300


def require_free_port(port: int, key: str = "evaluate.serve.flags.port") -> None:
    """Raises UserError when the port cannot be bound, by the test that ms-swift makes before it takes another one."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"{key}: {port} cannot be used ({error.strerror}); expected a free port; "
                "end what listens there, or remove the key and the kernel chooses one"
            ) from None


def is_port_answered(port: int) -> bool:
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def last_error(log_path: Path) -> str:
    """The exception that a log ends with, else its last lines; of vLLM's exceptions, the one that gives the reason."""
    lines = [line.strip() for line in log_path.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [_VLLM_PREFIX.sub("", line) for line in lines if line]
    exceptions = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception|Interrupt|error)\b", line)]
    reasons = [line for line in exceptions if not any(pointer in line for pointer in _VLLM_POINTERS)]
    exceptions = reasons or exceptions
    return exceptions[-1] if exceptions else " | ".join(lines[-_NUM_ERROR_LINES:]) or "nothing was written"


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone, or only its exit status is left."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@dataclass
class ModelServer:
    """A server that was started; `is_ready` and `require_alive` tell its state."""

    process: subprocess.Popen[bytes]
    port: int
    served_name: str
    log_path: Path
    startup_timeout_s: float
    started_s: float = field(default_factory=time.monotonic)
    engines: list[psutil.Process] = field(default_factory=list)  # the children it had when it was ready: vLLM's engine

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def require_alive(self) -> None:
        """Raises UserError with the server's last error when it has ended, or an engine of it has.

        Without its engine `swift deploy` lives on, answers its health check, and refuses each question with HTTP 400.
        """
        if (status := self.process.poll()) is not None:
            how = f"killed by {ending(status)}" if status < 0 else ending(status)
        elif ended := [engine.pid for engine in self.engines if has_ended(engine)]:
            how = f"its child process {ended[0]} is gone"
        else:
            return
        raise UserError(
            f"{self.log_path}: the model server ended ({how}): {last_error(self.log_path)}; "
            "correct what this file says and run the same command again"
        )

    def is_ready(self) -> bool:
        """Whether this very server answers; raises UserError when it never will."""
        self.require_alive()
        if time.monotonic() - self.started_s > self.startup_timeout_s:
            raise UserError(
                f"evaluate.serve.startup_timeout_s: the model server was not ready after {self.startup_timeout_s:g} s "
                f"(last line: {last_error(self.log_path)}); raise it, or see {self.log_path}"
            )
        if not self._listens():
            if is_port_answered(self.port) and not self._listens():
                raise UserError(
                    f"{self.log_path}: port {self.port} was taken by another process while the model was loading; "
                    "run the same command again"
                )
            return False
        try:
            if self._request("GET", "/health")[0] != 200:
                return False
            status, body = self._request("GET", "/v1/models")
        except OSError:
            return False
        names = [model["id"] for model in json.loads(body)["data"]] if status == 200 else []
        if self.served_name not in names:
            raise UserError(
                f"{self.log_path}: the server offers {', '.join(names) or 'no model'}; expected {self.served_name}; "
                "see evaluate.serve.flags.served_model_name"
            )
        with contextlib.suppress(psutil.NoSuchProcess):
            self.engines = psutil.Process(self.process.pid).children()
        return True

    def ask(self, body: Mapping[str, Any], timeout_s: float = 300.0) -> dict[str, Any]:
        """One chat completion; raises UserError when it is refused."""
        try:
            status, answer = self._request(
                "POST", "/v1/chat/completions", {"model": self.served_name, **body}, timeout_s
            )
        except OSError as error:
            self.require_alive()
            raise UserError(f"{self.log_path}: the model server did not answer ({error})") from None
        if status != 200:
            raise UserError(
                f"{self.log_path}: the model server refused a question with HTTP {status}: "
                f"{answer.decode(errors='replace')[:_NUM_SHOWN_CHARACTERS]} (last error: {last_error(self.log_path)})"
            )
        return dict(json.loads(answer))

    def require_sound_answer(self, picture: str) -> None:
        """Asks about one picture (base64) for one token: weights of NaN, or a template that misplaces pictures, fail here."""
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
            {"type": "text", "text": "What is in the picture?"},
        ]
        messages = [{"role": "user", "content": content}]
        try:
            answer = self.ask({"messages": messages, "max_tokens": 1, "temperature": 0, "logprobs": True})
            (token,) = answer["choices"][0]["logprobs"]["content"]
            is_sound = math.isfinite(token["logprob"])
        except UserError as error:
            raise UserError(
                f"{error}; this was the first question, about one picture: look for NaN in the model's weights, and at "
                "its processor and template"
            ) from None
        except (KeyError, TypeError, ValueError):
            is_sound = False
        if not is_sound:
            raise UserError(
                f"{self.log_path}: the first question got no finite probability for its answer; expected a number; "
                "the model's weights may hold NaN: look at the losses of its training, or at the graft's ledger"
            )

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = 30.0
    ) -> tuple[int, bytes]:
        """Status and body of one request, straight to the port: no proxy of the environment is used."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout_s)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(f"broken answer: {error!r}") from None
        finally:
            connection.close()

    def _listens(self) -> bool:
        """Whether the server's own processes listen on its port; ms-swift takes another one when it is busy."""
        with contextlib.suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.process.pid)
            for process in [leader, *leader.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for connection in process.net_connections("tcp"):
                        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == self.port:
                            return True
        return False


@contextlib.contextmanager
def model_server(serving: Serving, inherited: Mapping[str, str], directory: Path) -> Iterator[ModelServer]:
    """Starts serving and yields at once; `directory` gets server.log and server.json (pid, port, command).

    `inherited` are the variables that the server starts from: os.environ, or one of `replica_environments`.
    """
    settings = serving.settings
    port = settings.port
    if port is None:
        port = free_port(HOST)
    else:
        require_free_port(port)
    command = deploy_command(serving, port)
    log_path = directory / "server.log"
    with process_group(command, server_environment(inherited, settings), directory, log_path) as process:
        write_json_atomically(directory / "server.json", {"pid": process.pid, "port": port, "command": command})
        yield ModelServer(process, port, settings.served_name, log_path, settings.startup_timeout_s)
