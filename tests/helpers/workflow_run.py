"""Runs the workflow in a directory as a user would, and reads what it planned."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from helpers.kept_results import files_of_tree
from helpers.processes import LIMIT_S, wait_for

# No run of the tests takes a quarter of it, on however busy a machine: what takes longer hangs.
RUN_LIMIT_S = 2400.0


@dataclass(frozen=True)
class WorkflowRun:
    """A checkout in which `snakemake` is run."""

    directory: Path

    @property
    def results(self) -> Path:
        return self.directory / "results/demo"

    def command(self, *arguments: str) -> list[str]:
        return [".venv/bin/snakemake", "--cores", "2", *arguments]

    def run(self, *arguments: str, status: int = 0) -> str:
        """Runs to the end and returns what was printed; fails with it when the exit status is another one."""
        try:
            finished = subprocess.run(
                self.command(*arguments), cwd=self.directory, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=RUN_LIMIT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
            raise AssertionError(f"the workflow has not ended within {RUN_LIMIT_S:.0f} s: {said[-6000:]}") from None
        assert finished.returncode == status, finished.stdout[-6000:]
        return finished.stdout

    def interrupted(self, sign: Callable[[], bool], number: signal.Signals, *arguments: str) -> None:
        """Starts the workflow and sends `number` to its whole process group (as a terminal does) once `sign()` is true."""
        self._end(sign, lambda process: os.killpg(process.pid, number), arguments)

    def orphaned(self, sign: Callable[[], bool], *arguments: str) -> dict[psutil.Process, list[str]]:
        """The same, with SIGKILL for Snakemake alone; returns the processes that it leaves behind, with their commands."""
        left: dict[psutil.Process, list[str]] = {}

        def kill(process: subprocess.Popen[bytes]) -> None:
            left.update({each: each.cmdline() for each in psutil.Process(process.pid).children(recursive=True)})
            process.kill()

        self._end(sign, kill, arguments)
        return left

    def _end(
        self, sign: Callable[[], bool], end: Callable[[subprocess.Popen[bytes]], None], arguments: Sequence[str]
    ) -> None:
        with open(self.directory / "interrupted.log", "ab") as log:
            process = subprocess.Popen(
                self.command(*arguments), cwd=self.directory, stdout=log, stderr=log, start_new_session=True
            )
            wait_for(lambda: process.poll() is not None or sign(), "the moment to interrupt")
            assert process.poll() is None, "the workflow ended before it could be interrupted"
            end(process)
            process.wait(LIMIT_S)
        assert process.returncode != 0


def copy_tree(root: Path, directory: Path) -> None:
    """Copies what git tracks or would track, with its times."""
    for name in files_of_tree(root):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, directory / name)


def make_checkout(root: Path, directory: Path) -> WorkflowRun:
    """A copy of the tree with links to its environments, which take minutes to build."""
    copy_tree(root, directory)
    for environments in (".venv", ".venvs"):
        (directory / environments).symlink_to(root / environments, target_is_directory=True)
    return WorkflowRun(directory)


def planned_rules(dry_run_output: str) -> set[str]:
    """Names of the rules in the plan of a dry run; empty when nothing is to be done."""
    return {job.split()[0] for job in planned_jobs(dry_run_output)}


def planned_jobs(dry_run_output: str) -> set[str]:
    """Rules with their wildcards, as `train stage=stage2`, in the plan of a dry run."""
    parts = re.split(r"^(?:local)?rule (\w+):$", dry_run_output, flags=re.MULTILINE)
    jobs = set()
    for rule, body in zip(parts[1::2], parts[2::2], strict=True):
        wildcards = re.search(r"^    wildcards: (.*)$", body, re.MULTILINE)
        jobs.add(f"{rule} {wildcards.group(1)}" if wildcards else rule)
    return jobs
