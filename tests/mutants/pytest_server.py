"""Runs pytest again and again without importing what is large each time: torch and ms-swift alone take 20 s.

A child of run_mutants.py, in one copy of the tree and under the interpreter that its tests need. It imports packages that no
mutant changes, then forks for each line on stdin: {"arguments": [...], "output": PATH, "limit_s": 120}. The child runs pytest;
the answer on stdout is {"status": N}, or {"status": null} where the time limit ended it and all that it had started.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time

# Those that an environment does not have are passed over.
LARGE_PACKAGES = (
    "pytest", "numpy", "pandas", "PIL.Image", "yaml", "jsonschema", "jinja2", "psutil", "snakemake_executor_plugin_slurm",
    "torch", "transformers", "transformers.models.qwen3.modeling_qwen3", "safetensors.torch", "swift.callbacks",
    "swift.dataset", "swift.template",
)  # fmt: skip
SECONDS_BETWEEN_LOOKS = 0.02


def run_in_child(arguments: list[str], output_path: str) -> None:
    """Becomes a run of pytest; does not return."""
    status = 3  # pytest's own for an error inside it
    try:
        os.setsid()
        nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(output_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for target, source in ((0, nothing), (1, output), (2, output)):
            os.dup2(source, target)
        pytest = importlib.import_module("pytest")
        status = int(pytest.main(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait_for(pid: int, limit_s: float) -> int | None:
    """Its exit status; None where it had to be killed."""
    deadline_s = time.monotonic() + limit_s
    is_killed = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return None if is_killed else os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline_s and not is_killed:
            is_killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def main() -> None:
    for name in LARGE_PACKAGES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        task = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run_in_child(task["arguments"], task["output"])
        print(json.dumps({"status": wait_for(pid, task["limit_s"])}), file=answers, flush=True)


if __name__ == "__main__":
    main()
