"""Runs the workflow on a cluster by the command that its users type, and looks at a stage that it trains."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers.slurm_cluster import SlurmCluster, wait_until
from helpers.workflow_run import WorkflowRun

START_LIMIT_S = 240.0
END_LIMIT_S = 480.0

# The demo, shorter, with donors from both hubs; a second stage on two nodes, whose questions two nodes share.
OVERLAY: dict[str, Any] = {
    "donors": {
        "vl": {"kind": "modelscope", "id": "lab/vision", "revision": "master"},
        "llm": {"kind": "huggingface", "id": "lab/language", "revision": "main"},
    },
    "stage1": {"flags": {"max_steps": 60, "save_steps": 20}},
    "stage2": {
        "num_nodes": 2,
        "num_processes_per_node": 2,
        "deepspeed": "zero2",
        "flags": {"max_steps": 40, "save_steps": 20, "per_device_train_batch_size": 16},
    },
    "evaluate": {"models": ["stage2"], "serve": {"num_nodes": 2}},
}


@dataclass(frozen=True)
class ClusterRun(WorkflowRun):
    """A checkout in which `snakemake --profile slurm` is run, on a login node in the cluster's network."""

    cluster: SlurmCluster

    def write_overlay(self, **sections: dict[str, Any]) -> None:
        """Writes site.yaml: OVERLAY, with other values for some keys of a section."""
        overlay = OVERLAY | {section: OVERLAY[section] | changes for section, changes in sections.items()}
        (self.directory / "site.yaml").write_text(yaml.safe_dump(overlay))

    def command(self, *arguments: str) -> list[str]:
        return self.cluster.inside(*self.command_with_network(*arguments))

    def command_with_network(self, *arguments: str) -> list[str]:
        """Targets and options first: --configfile takes every word behind it for a file."""
        profile = ["--profile", "slurm", "--configfile", "config/demo.yaml", "site.yaml"]
        return [".venv/bin/snakemake", *arguments, *profile]

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """The workflow in the background, ended by the block at the latest."""
        with open(self.directory / "started.log", "wb") as log:
            process = subprocess.Popen(
                self.command(*arguments), cwd=self.directory, stdout=log, stderr=log, start_new_session=True
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def said(self) -> str:
        """What the workflow in the background has printed."""
        return (self.directory / "started.log").read_text(errors="replace")

    def target(self, stage: str) -> str:
        return f"results/demo/{stage}/metrics.json"

    def table(self) -> str:
        return (self.results / "eval/digits.csv").read_text()

    def metrics(self, stage: str) -> dict[str, Any]:
        return json.loads((self.directory / self.target(stage)).read_text())

    def weights_sha256(self, stage: str) -> dict[str, str]:
        files = sorted((self.results / stage / "checkpoint").glob("*.safetensors"))
        assert files, f"{stage}: no weights"
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def forget(self, stage: str) -> None:
        """As if the stage had never been trained."""
        shutil.rmtree(self.results / stage)
        shutil.rmtree(self.directory / "work/results/demo" / stage)

    def watch_dir(self, stage: str) -> Path | None:
        """Of the training that has begun, if one has."""
        found = list((self.directory / "work/results/demo" / stage).glob("*/watch"))
        return found[0] if found else None

    def step(self, stage: str) -> int:
        """The last step that the first rank has told of."""
        watch_dir = self.watch_dir(stage)
        path = watch_dir / "steps-rank0.jsonl" if watch_dir else None
        if path is None or not path.exists():
            return 0
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        return json.loads(lines[-1])["step"] if lines else 0

    def starts(self, stage: str) -> list[dict[str, Any]]:
        """One line for each time that the trainer was started."""
        return self.lines(stage, "attempts.jsonl")

    def failures(self, stage: str) -> list[dict[str, Any]]:
        """One line for each start that ended before the last step."""
        return self.lines(stage, "failures.jsonl")

    def lines(self, stage: str, name: str) -> list[dict[str, Any]]:
        watch_dir = self.watch_dir(stage)
        assert watch_dir is not None
        return [json.loads(line) for line in (watch_dir.parent / name).read_text().splitlines()]

    def ranks(self, stage: str) -> list[dict[str, Any]]:
        """Who the trainer's processes are: pid and host of each rank."""
        watch_dir = self.watch_dir(stage)
        assert watch_dir is not None
        return [json.loads(path.read_text()) for path in sorted(watch_dir.glob("rank*.json"))]


@contextmanager
def halted(processes: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Processes that do nothing meanwhile; a signal that they get finds them when they go on."""
    for process in processes:
        os.kill(process["pid"], signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process["pid"], signal.SIGCONT)


def wait_for_step(run: ClusterRun, stage: str, step: int, process: subprocess.Popen[bytes]) -> None:
    def has_come() -> bool:
        assert process.poll() is None, run.said()[-4000:]
        return run.step(stage) >= step

    wait_until(has_come, START_LIMIT_S, f"step {step} of {stage}")


def wait_for_end(run: ClusterRun, process: subprocess.Popen[bytes]) -> None:
    process.wait(timeout=END_LIMIT_S)
    assert process.returncode == 0, run.said()[-6000:]
