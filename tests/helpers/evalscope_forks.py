"""Runs programs of the environment `evaluate` in forks of one process that has imported EvalScope and VLMEvalKit already.

Their import takes 20 s of processor time, which is more than most tests of an evaluation take. A fork runs the program
itself, from its first line, with its own arguments, variables and output; only the libraries are there before it. What a
program starts as `sys.executable PROGRAM …` or `sys.executable -m PROGRAM …` is forked in the same way, everything else
is executed as ever. That a program imports what it needs by itself is seen where it is really started: by the demo and in
tests/pipeline/test_evaluation.py.

This file is both sides. The tests import `EvalScopeForks`; it starts the file as a program in that environment:
  .venvs/evaluate/bin/python tests/helpers/evalscope_forks.py SOCKET    ends with its stdin, and all that it forked with it
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# What scripts/evaluate/run_vlmevalkit.py and run_native.py import first.
IMPORTS = (
    "evalscope.backend.vlm_eval_kit", "vlmeval.run", "evalscope.run", "evalscope.models.openai_compatible",
    "evalscope.evaluator",
)  # fmt: skip
# Read by a library when it is imported; with the values that scripts/evaluate/question_loop.py gives to EvalScope.
VARIABLES = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
LIMIT_S = 600.0
_MOST_BYTES = 2**20


class ForkedProcess:
    """What the tests use of subprocess.Popen, for a process that another one has forked."""

    def __init__(self, pid: int, connection: socket.socket, output_path: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection, self._output_path = connection, output_path

    def wait(self, timeout: float | None = LIMIT_S) -> int:
        """Its exit status; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            status = self._connection.recv(64)
            assert status, "the process that forks has ended"
            self.returncode = int(status)
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def communicate(self, timeout: float | None = LIMIT_S) -> tuple[str, None]:
        """What it has printed when it has ended."""
        self.wait(timeout)
        return self._output_path.read_text(encoding="utf-8"), None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class EvalScopeForks:
    """The process that forks; start it once for many tests, and `close` it."""

    def __init__(self, python: Path, directory: Path) -> None:
        self._directory = directory
        self._socket_path = directory / "socket"
        self._num_started = 0
        self._log_path = directory / "log"
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(
                [python, __file__, self._socket_path],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | VARIABLES,
            )  # fmt: skip

    def start(self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str]) -> ForkedProcess:
        """Starts `python ARGUMENTS` of the environment."""
        connection = self._connect()
        self._num_started += 1
        output_path = self._directory / f"output{self._num_started}"
        request = json.dumps(
            {"arguments": list(arguments), "directory": str(directory), "environment": {**environment}}
        )
        with open(output_path, "wb") as output:
            socket.send_fds(connection, [request.encode()], [output.fileno()])
        return ForkedProcess(int(connection.recv(64)), connection, output_path)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _connect(self) -> socket.socket:
        """Waits until everything has been imported."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                connection.connect(str(self._socket_path))
                return connection
            connection.close()
            assert self._process.poll() is None and time.monotonic() < deadline, self._log_path.read_text()
            time.sleep(0.05)


def is_program(command: Any) -> bool:
    """Whether a command is a Python program of this environment: a file, a directory with a __main__.py, or a module."""
    if not isinstance(command, (list, tuple)) or len(command) < 2 or str(command[0]) != sys.executable:
        return False
    return command[1] == "-m" or Path(command[1]).suffix == ".py" or Path(command[1]).is_dir()


def become_program(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Runs `python ARGUMENTS` to its end, in place of what this process was."""
    # A new program begins with these, whatever the one before did with its signals.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    subprocess.Popen = ForkingPopen  # type: ignore[misc]
    is_module = arguments[0] == "-m"
    sys.argv = [str(argument) for argument in arguments[is_module:]]
    own_path = str(Path.cwd() if is_module else Path(sys.argv[0]).resolve().parent)
    sys.path[0:1] = [own_path, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    status: Any = 0
    try:
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        status = ended.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class ForkingPopen(subprocess.Popen):  # type: ignore[type-arg]
    """subprocess.Popen within a fork: a program of this environment is forked once more, and finds the libraries imported."""

    def __init__(self, args: Any, *, preexec_fn: Callable[[], None] | None = None, **options: Any) -> None:
        prepare = preexec_fn
        if is_program(args):
            environment = os.environ if options.get("env") is None else options["env"]

            def prepare() -> None:
                if preexec_fn:
                    preexec_fn()
                # Among them is the pipe at whose end Popen waits for exec.
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                become_program(args[1:], dict(environment))

        super().__init__(args, preexec_fn=prepare, **options)


def fork(request: Mapping[str, Any], output: int) -> int:
    """Starts what a test asks for; returns its pid."""
    if pid := os.fork():
        return pid
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["directory"])
    become_program(request["arguments"], request["environment"])


def serve(listener: socket.socket) -> None:
    """Forks as it is asked to, and tells how each fork ended, until stdin ends; then ends those that live."""
    living: dict[int, int] = {}  # pidfd -> pid
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == 0:
                    for pid in living.values():
                        os.kill(pid, signal.SIGKILL)
                    return
                if key.fd == listener.fileno():
                    connection, _ = listener.accept()
                    message, (output,), _, _ = socket.recv_fds(connection, _MOST_BYTES, 1)
                    pid = fork(json.loads(message), output)
                    os.close(output)
                    connection.send(str(pid).encode())
                    pidfd = os.pidfd_open(pid)
                    living[pidfd] = pid
                    selector.register(pidfd, selectors.EVENT_READ, connection)
                else:
                    status = os.waitstatus_to_exitcode(os.waitpid(living.pop(key.fd), 0)[1])
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    with key.data as connection, contextlib.suppress(BrokenPipeError):
                        connection.send(str(status).encode())


def main() -> None:
    for name in IMPORTS:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        serve(listener)
    os._exit(0)  # nothing is left to do; giving back what was imported takes seconds


if __name__ == "__main__":
    main()
