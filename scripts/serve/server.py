"""`swift deploy` as a context manager: on 127.0.0.1, watched while it starts and while it serves, always ended.

    with model_server(command, environment, directory) as server:
        while not server.is_ready():
            time.sleep(0.2)
        server.ask({"messages": [...]})

Started as a Python program, never by the `swift` wrapper, which leaves its child running when it is ended.
"""

import contextlib
import http.client
import json
import math
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scripts.common.child_processes import process_group
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json_atomically
from scripts.common.gpus import visible_gpus
from scripts.common.swift import OWN_IDS_TEMPLATE, flag_arguments, model_type, template

HOST = "127.0.0.1"

# The name that the published recipe serves under. VLMEvalKit treats some names specially (those with "step", "o1", "gemini" …).
DEFAULT_SERVED_NAME = "Qwen3-VL"
_NUM_ERROR_LINES = 3

# "(EngineCore pid=7) ERROR 11-26 02:09:31 [core.py:1503] ", before each line of what vLLM's processes log.
_VLLM_PREFIX = re.compile(r"^(\(\w+ pid=\d+\) )?[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[\w.]+:\d+\] ")

# What vLLM's first process says when another one has failed; the reason stands before it.
_VLLM_POINTERS = ("See stack trace (above) for the root cause", "See root cause above")
_NUM_SHOWN_CHARACTERS = 300


def free_port() -> int:
    """A port that nobody uses now, chosen by the kernel."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def require_free_port(port: int) -> None:
    """Raises UserError when the port cannot be bound, by the test that ms-swift makes before it takes another one."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"evaluate.serve.flags.port: {port} cannot be used ({error.strerror}); expected a free port; "
                "end what listens there, or remove the key and the kernel chooses one"
            ) from None


def model_arguments(model_dir: Path, root: Path) -> dict[str, Any]:
    """How ms-swift is to read the checkpoint, by what its config.json says of itself."""
    config = read_json(model_dir / "config.json")
    arguments = {"model": str(model_dir), "model_type": model_type(config), "template": template(config)}
    if OWN_IDS_TEMPLATE in arguments.values():
        arguments["external_plugins"] = str(root / "model" / "qwen2_5_vl_qwen3" / "swift_plugin.py")
    return arguments


def deploy_command(serve_python: Path, root: Path, model_dir: Path, serve: Mapping[str, Any], port: int) -> list[str]:
    """The command that serves `model_dir`; `serve` is the section of the configuration."""
    flags = {"served_model_name": DEFAULT_SERVED_NAME, "verbose": False, "log_interval": -1, **serve["flags"]}
    flags |= {"infer_backend": serve["backend"], "host": HOST, "port": port, **model_arguments(model_dir, root)}
    return [str(serve_python), "-m", "swift.cli.deploy", *flag_arguments(flags)]


def server_environment(inherited: Mapping[str, str], root: Path, serve: Mapping[str, Any]) -> dict[str, str]:
    """Variables of the server: no hub is asked, its engine's workers find our classes and meet on this machine alone
    (vLLM would take the address that leads to the internet), and what the configuration sets.

    FlashInfer's sampler is off: vLLM 0.32.0 compiles it with nvcc when it first starts, for minutes, and uses it neither at
    temperature 0 nor with seeds, so for no answer of an evaluation.
    """
    own = {"USE_HF": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": HOST}
    own |= {"VLLM_USE_FLASHINFER_SAMPLER": "0", "PYTHONPATH": str(root / "model")}
    return {**inherited, **own, **{name: str(value) for name, value in serve["environment"].items()}}


def replica_environments(inherited: Mapping[str, str], num_replicas: int) -> list[dict[str, str]]:
    """One environment for each replica: with several, each sees an equal share of the GPUs, in their order.

    Raises UserError when they cannot be shared evenly.
    """
    gpus = visible_gpus(inherited)
    if num_replicas == 1 or not gpus:
        return [dict(inherited) for _ in range(num_replicas)]
    share, rest = divmod(len(gpus), num_replicas)
    if rest or not share:
        raise UserError(
            f"evaluate.serve.num_replicas: {num_replicas} replicas cannot share {len(gpus)} GPUs ({','.join(gpus)}) evenly; "
            "change it, or set CUDA_VISIBLE_DEVICES to the GPUs that are to be used"
        )
    shares = [gpus[number * share : (number + 1) * share] for number in range(num_replicas)]
    return [{**inherited, "CUDA_VISIBLE_DEVICES": ",".join(each)} for each in shares]


def last_error(log_path: Path) -> str:
    """The exception that a log ends with, else its last lines; of vLLM's, the one that says why."""
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
    """A server that was started; `is_ready` and `require_alive` say how it fares."""

    process: subprocess.Popen[bytes]
    port: int
    served_name: str
    log_path: Path
    startup_timeout_s: float
    started: float = field(default_factory=time.monotonic)
    engines: list[psutil.Process] = field(default_factory=list)  # its children when it was ready: vLLM's engine

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def require_alive(self) -> None:
        """Raises UserError with the server's last error when it has ended, or an engine of it has.

        Without its engine `swift deploy` lives on, says that it is healthy, and refuses each question with HTTP 400.
        """
        if (status := self.process.poll()) is not None:
            how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        elif ended := [engine.pid for engine in self.engines if has_ended(engine)]:
            how = f"its child process {ended[0]} is gone"
        else:
            return
        raise UserError(
            f"{self.log_path}: the model server ended ({how}): {last_error(self.log_path)}; "
            "mend what this file says and run the same command again"
        )

    def is_ready(self) -> bool:
        """Whether this very server answers; raises UserError when it never will."""
        self.require_alive()
        if time.monotonic() - self.started > self.startup_timeout_s:
            raise UserError(
                f"evaluate.serve.startup_timeout_s: the model server was not ready after {self.startup_timeout_s:g} s "
                f"(last line: {last_error(self.log_path)}); raise it, or see {self.log_path}"
            )
        if not self._listens():
            if self._is_port_answered() and not self._listens():
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

    def _is_port_answered(self) -> bool:
        """Whether anybody listens there."""
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


@contextlib.contextmanager
def model_server(
    serve_python: Path,
    root: Path,
    model_dir: Path,
    serve: Mapping[str, Any],
    inherited_environment: Mapping[str, str],
    directory: Path,
) -> Iterator[ModelServer]:
    """Starts serving and yields at once; `directory` gets server.log and server.json (pid, port, command)."""
    port = serve["flags"].get("port")
    if port is None:
        port = free_port()
    else:
        require_free_port(port)
    command: Sequence[str] = deploy_command(serve_python, root, model_dir, serve, port)
    environment = server_environment(inherited_environment, root, serve)
    log_path = directory / "server.log"
    with process_group(command, environment, directory, log_path) as process:
        write_json_atomically(directory / "server.json", {"pid": process.pid, "port": port, "command": command})
        served_name = serve["flags"].get("served_model_name", DEFAULT_SERVED_NAME)
        yield ModelServer(process, port, served_name, log_path, serve["startup_timeout_s"])
