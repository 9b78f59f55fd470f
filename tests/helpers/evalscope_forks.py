"""Runs programs of the environment `evaluate` in forks of one process that has imported EvalScope and VLMEvalKit already.

Their import takes 20 s of processor time, which is more than most tests of an evaluation take. A fork runs the program
itself, from its first line, with its own arguments, variables and output; only the libraries are there before it
(tests/helpers/fork_programs.py). That a program imports what it needs by itself is seen where it is really started: by the
demo and in tests/pipeline/test_evaluation.py.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.processes import LIMIT_S, wait_for

PROGRAM = Path(__file__).with_name("fork_programs.py")
# Read by a library when it is imported; with the values that scripts/evaluate/question_loop.py gives to EvalScope.
VARIABLES = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


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
                [python, PROGRAM, self._socket_path],
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
        wait_for(lambda: self._socket_path.exists() or self._process.poll() is not None, "EvalScope's import")
        assert self._process.poll() is None, self._log_path.read_text()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(self._socket_path))
        return connection
