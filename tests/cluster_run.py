"""Runs the workflow on a cluster by the command that its users type, and looks at a stage that it trains."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from workflow_run import WorkflowRun

# The demo, shorter, with a second stage on two nodes.
OVERLAY: dict[str, Any] = {
    "stage1": {"flags": {"max_steps": 60, "save_steps": 20}},
    "stage2": {
        "num_nodes": 2,
        "num_processes_per_node": 2,
        "deepspeed": "zero2",
        "flags": {"max_steps": 40, "save_steps": 20, "per_device_train_batch_size": 16},
    },
    "evaluate": {"models": ["stage2", "stage2-shuffled"]},
}


@dataclass(frozen=True)
class ClusterRun(WorkflowRun):
    """A checkout in which `snakemake --profile slurm` is run."""

    def write_overlay(self, **stages: dict[str, Any]) -> None:
        """Writes site.yaml: OVERLAY, with other values for some keys of a stage."""
        overlay = OVERLAY | {stage: OVERLAY[stage] | changes for stage, changes in stages.items()}
        (self.directory / "site.yaml").write_text(yaml.safe_dump(overlay))

    def command(self, *arguments: str) -> list[str]:
        """Targets and options first: --configfile takes every word behind it for a file."""
        profile = ["--profile", "slurm", "--configfile", "config/demo.yaml", "site.yaml"]
        return [".venv/bin/snakemake", *arguments, *profile]

    def target(self, stage: str) -> str:
        return f"results/demo/{stage}/metrics.json"

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
        watch_dir = self.watch_dir(stage)
        assert watch_dir is not None
        return [json.loads(line) for line in (watch_dir.parent / "attempts.jsonl").read_text().splitlines()]

    def ranks(self, stage: str) -> list[dict[str, Any]]:
        """Who the trainer's processes are: pid and host of each rank."""
        watch_dir = self.watch_dir(stage)
        assert watch_dir is not None
        return [json.loads(path.read_text()) for path in sorted(watch_dir.glob("rank*.json"))]
