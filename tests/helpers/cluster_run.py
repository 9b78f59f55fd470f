"""Runs the workflow on a cluster by the command that its users type, and looks at a stage that it trains."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers.slurm_cluster import LIMIT_S, SlurmCluster, wait_until
from helpers.workflow_run import WorkflowRun
from scripts.train.complete_checkpoints import last_complete, step_of

TABLE = "results/demo/eval/digits.csv"
NUM_QUESTIONS = 40
# Many short steps, so that a training that is to be held is still far from its last one.
NUM_STEPS = {"stage1": 160, "stage2": 40}
SAVE_STEPS = 10
BATCH_SIZES = {"stage1": 8, "stage2": 2}  # of one process
SECONDS_BETWEEN_LOOKS_AT_STEPS = 0.005


def flags_of(stage: str) -> dict[str, Any]:
    return {
        "max_steps": NUM_STEPS[stage],
        "save_steps": SAVE_STEPS,
        "per_device_train_batch_size": BATCH_SIZES[stage],
    }


# The demo's recipe with tiny donors from both hubs; a second stage on two nodes, whose questions two nodes share.
OVERLAY: dict[str, Any] = {
    "donors": {
        "vl": {"kind": "modelscope", "id": "lab/vision", "revision": "master"},
        "llm": {"kind": "huggingface", "id": "lab/language", "revision": "main"},
    },
    "stage1": {"flags": flags_of("stage1")},
    "stage2": {"num_nodes": 2, "num_processes_per_node": 2, "deepspeed": "zero2", "flags": flags_of("stage2")},
    "evaluate": {"models": ["stage2"], "serve": {"num_nodes": 2}},
    "demo": {"digits": {"num_dev": 700, "num_test": NUM_QUESTIONS, "num_copies": 1}},
}


@dataclass(frozen=True)
class ClusterRun(WorkflowRun):
    """A checkout in which `snakemake --profile slurm` is run, on a login node in the cluster's network."""

    cluster: SlurmCluster

    def copy(self, directory: Path, cluster: SlurmCluster | None = None) -> "ClusterRun":
        """All that was made here, at another place, where nobody minds what becomes of it."""
        shutil.copytree(self.directory, directory, symlinks=True)
        return ClusterRun(directory, cluster or self.cluster)

    def write_overlay(self, **sections: dict[str, Any]) -> None:
        """Writes site.yaml: OVERLAY, with other values for some keys of a section."""
        overlay = OVERLAY | {section: OVERLAY[section] | changes for section, changes in sections.items()}
        (self.directory / "site.yaml").write_text(yaml.safe_dump(overlay))

    @contextmanager
    def overlay(self, **sections: dict[str, Any]) -> Iterator[None]:
        """Another site.yaml while the block lasts."""
        self.write_overlay(**sections)
        try:
            yield
        finally:
            self.write_overlay()

    def command(self, *arguments: str) -> list[str]:
        return self.cluster.inside(*self.command_with_network(*arguments))

    def command_with_network(self, *arguments: str) -> list[str]:
        """Targets and options first: --configfile takes every word behind it for a file."""
        profile = ["--profile", "slurm", "--configfile", "config/demo.yaml", "site.yaml"]
        return [".venv/bin/snakemake", *arguments, *profile]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The workflow in the background; what it prints is in `said`."""
        with open(self.directory / "started.log", "wb") as log:
            return subprocess.Popen(
                self.command(*arguments), cwd=self.directory, stdout=log, stderr=log, start_new_session=True
            )

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """The workflow in the background, ended by the block at the latest."""
        process = self.start(*arguments)
        try:
            yield process
        finally:
            end(process)

    def said(self) -> str:
        """What the workflow in the background has printed."""
        return (self.directory / "started.log").read_text(errors="replace")

    def target(self, stage: str) -> str:
        return f"results/demo/{stage}/metrics.json"

    def table(self) -> str:
        return (self.directory / TABLE).read_text()

    def answers(self) -> dict[str, str]:
        """What the served model has said to each question."""
        lines = (self.results / "eval/digits/stage2.jsonl").read_text().splitlines()
        return {record["index"]: record["prediction"] for record in map(json.loads, lines)}

    def metrics(self, stage: str) -> dict[str, Any]:
        return json.loads((self.directory / self.target(stage)).read_text())

    def weights_sha256(self, stage: str) -> dict[str, str]:
        files = sorted((self.results / stage / "checkpoint").glob("*.safetensors"))
        assert files, f"{stage}: no weights"
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def forget(self, stage: str) -> None:
        """As if the stage had never been trained."""
        for directory in (self.results / stage, self.directory / "work/results/demo" / stage):
            if directory.exists():
                shutil.rmtree(directory)

    def watch_dir(self, stage: str) -> Path | None:
        """Of the training that has begun, if one has."""
        found = list((self.directory / "work/results/demo" / stage).glob("*/watch"))
        return found[0] if found else None

    def step(self, stage: str) -> int:
        """The last step that the first rank has recorded."""
        watch_dir = self.watch_dir(stage)
        path = watch_dir / "steps-rank0.jsonl" if watch_dir else None
        if path is None or not path.exists():
            return 0
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        return json.loads(lines[-1])["step"] if lines else 0

    def saved_step(self, stage: str) -> int:
        """Of the last complete checkpoint."""
        watch_dir = self.watch_dir(stage)
        checkpoint = last_complete(watch_dir.parent / "trainer") if watch_dir else None
        return step_of(checkpoint) if checkpoint else 0

    def starts(self, stage: str) -> list[dict[str, Any]]:
        """One line for each time that the trainer was started."""
        return self.lines(stage, "attempts.jsonl")

    def failures(self, stage: str) -> list[dict[str, Any]]:
        """One line for each start that ended before the last step."""
        return self.lines(stage, "failures.jsonl")

    def lines(self, stage: str, name: str) -> list[dict[str, Any]]:
        watch_dir = self.watch_dir(stage)
        path = watch_dir.parent / name if watch_dir else None
        return [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []

    def ranks(self, stage: str) -> list[dict[str, Any]]:
        """Who the trainer's processes are: pid and host of each rank."""
        watch_dir = self.watch_dir(stage)
        assert watch_dir is not None
        return [json.loads(path.read_text()) for path in sorted(watch_dir.glob("rank*.json"))]

    @contextmanager
    def held(self, stage: str, step: int, process: subprocess.Popen[bytes]) -> Iterator[int]:
        """A training that stands still while the block lasts, once it has come to `step`; gives the step where it stands.

        A signal that its processes get meanwhile finds them when they go on.
        """
        wait_for_step(self, stage, step, process)
        ranks = self.ranks(stage)
        for rank in ranks:
            os.kill(rank["pid"], signal.SIGSTOP)
        try:
            reached = self.step(stage)
            assert reached < NUM_STEPS[stage], f"{stage} was through before it could be held; give it more steps"
            yield reached
        finally:
            for rank in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank["pid"], signal.SIGCONT)

    def wait_for_stop(self, stage: str, num_failures: int) -> None:
        """Returns when the trainer has been told to stop, or has done so already (the failure beyond `num_failures`)."""
        watch_dir = self.watch_dir(stage)
        assert watch_dir is not None
        stop_file = watch_dir / "stop"
        wait_until(lambda: stop_file.exists() or len(self.failures(stage)) > num_failures, f"the order to stop {stage}")

    def assert_saved_when_told_to_stop(self, stage: str, number: int, reached: int) -> None:
        """The start `number`, which stood at step `reached`, has saved there or just after; the next one went on from there."""
        resume_step = self.starts(stage)[number + 1]["resume_step"]
        assert resume_step >= reached
        messages = [failure["message"] for failure in self.failures(stage)]
        expected = f"stopped by SIGTERM; saved at step {resume_step} of {NUM_STEPS[stage]}"
        assert any(expected in message for message in messages), messages


@dataclass(frozen=True)
class WholeRun:
    """The recipe from `prefetch` to the table, and the step at which its stage 1 stood when its job was cancelled."""

    run: ClusterRun
    cancelled_at_step: int


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a workflow that was started in the background, if it has not ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_step(run: ClusterRun, stage: str, step: int, process: subprocess.Popen[bytes]) -> None:
    """Returns when the stage has come to the step; fails when the workflow that trains it ends before."""

    def has_come() -> bool:
        assert process.poll() is None, run.said()[-4000:]
        return run.step(stage) >= step

    wait_until(has_come, f"step {step} of {stage}", interval_s=SECONDS_BETWEEN_LOOKS_AT_STEPS)


def wait_for_end(run: ClusterRun, process: subprocess.Popen[bytes]) -> None:
    process.wait(timeout=LIMIT_S)
    assert process.returncode == 0, run.said()[-6000:]
