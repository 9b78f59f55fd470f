"""Imports EvalScope and VLMEvalKit once and then forks for each program that is to be run (helpers/evalscope_forks.py asks).

What such a program starts as `sys.executable PROGRAM …` or `sys.executable -m PROGRAM …` is forked in the same way, so that it
finds the libraries, too; everything else is executed as ever.

By hand:
  .venvs/evaluate/bin/python tests/helpers/fork_programs.py SOCKET    # ends with its stdin, and all that it forked with it
"""

import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# What scripts/evaluate/run_vlmevalkit.py and run_native.py import first.
IMPORTS = (
    "evalscope.backend.vlm_eval_kit", "vlmeval.run", "evalscope.run", "evalscope.models.openai_compatible",
    "evalscope.evaluator",
)  # fmt: skip
_MOST_BYTES = 2**20


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
        new_path = Path(f"{sys.argv[1]}.new")
        listener.bind(str(new_path))
        listener.listen()
        new_path.rename(sys.argv[1])  # there as soon as it can be asked
        serve(listener)
    os._exit(0)  # nothing is left to do; giving back what was imported takes seconds


if __name__ == "__main__":
    main()
