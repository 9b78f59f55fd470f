"""Runs evaluate.py as the workflow does, in a directory of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from helpers.evalscope_forks import EvalScopeForks, ForkedProcess
from helpers.evaluation_inputs import NEUTRAL_DECODING, benchmark_rows, write_rows
from helpers.processes import LIMIT_S

SETTINGS = {
    "mode": "all", "temperature": 0, "max_tokens": 8, "img_size": -1, "video_llm": False, "reuse": False, "nproc": 4,
    "judge": "exact_matching",
}  # fmt: skip
NATIVE_SETTINGS = {
    "hub": "modelscope", "temperature": 0.5, "max_tokens": 8, "batch_size": 4,
    "choice_prompt": "{question}\n{options}\nOne of {letters}.", "open_prompt": "{question}",
}  # fmt: skip


@dataclass
class EvaluationRun:
    """One evaluation; attributes may be changed before it is started."""

    root: Path
    directory: Path
    evaluate_python: Path
    serve_python: Path
    model_dir: Path
    benchmark: str = "DrawnDigits"
    backend: str = "vlmevalkit"
    control: str = "none"
    num_seeds: int = 1
    serve: dict[str, Any] = field(
        default_factory=lambda: {
            "backend": "transformers",
            "num_replicas": 1,
            "num_nodes": 1,
            "environment": {},
            "flags": dict(NEUTRAL_DECODING),
            "startup_timeout_s": 300,
        }
    )
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))
    forks: EvalScopeForks | None = None  # where it runs without importing EvalScope anew

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.tsv = write_rows(benchmark_rows(12), self.directory / f"{self.benchmark}.tsv")

    @property
    def records_path(self) -> Path:
        return self.directory / "model.jsonl"

    @property
    def provenance_path(self) -> Path:
        return self.directory / "model.json"

    @property
    def log_path(self) -> Path:
        return self.directory / "model.log"

    @property
    def run_dir(self) -> Path:
        """The one directory of a run under the work directory."""
        (found,) = [path for path in (self.directory / "work").iterdir() if path.is_dir()]
        return found

    def stand_in(self, **behaviour: Any) -> None:
        """Serves by the stand-in, with a behaviour."""
        self.serve_python = self.directory / "python"
        stand_in_path = self.root / "tests/helpers/model_server_stand_in.py"
        self.serve_python.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in_path} "$@"\n')
        self.serve_python.chmod(0o755)
        self.serve["environment"]["STAND_IN"] = json.dumps(behaviour)

    def start(self, *, share: int | None = None) -> subprocess.Popen[str] | ForkedProcess:
        """evaluate.py, or answer_share.py for one node's share."""
        if share is None:
            program = [
                "scripts",
                "evaluate.evaluate",
                "--records",
                str(self.records_path),
                "--provenance",
                str(self.provenance_path),
            ]
        else:
            output_path = self.directory / f"share{share}.json"
            program = ["scripts", "evaluate.answer_share", "--share", str(share), "--output", str(output_path)]
        command = [*program, "--log", str(self.log_path), "--model-name", "model"]
        command += ["--backend", self.backend, "--seed", "0", "--num-seeds", str(self.num_seeds)]
        command += ["--model-dir", str(self.model_dir), "--benchmark", self.benchmark, "--benchmark-tsv", str(self.tsv)]
        command += [
            "--control",
            self.control,
            "--serve",
            json.dumps(self.serve),
            "--work-dir",
            f"{self.directory}/work",
        ]
        command += ["--settings", json.dumps(self.settings), "--serve-python", str(self.serve_python)]
        # A proxy that leads nowhere: whatever asks for one, fails. Where LMUData names no directory, VLMEvalKit looks in the home
        # directory and then in the internet.
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "LMUData": "/nowhere",
            "http_proxy": "http://127.0.0.1:9",
            "all_proxy": "http://127.0.0.1:9",
        }
        if self.forks:
            return self.forks.start(command, self.root, environment)
        return subprocess.Popen(
            [self.evaluate_python, *command], cwd=self.root, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *, share: int | None = None) -> tuple[int, str]:
        """Exit status and what was printed."""
        process = self.start(share=share)
        output, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, output

    @property
    def answers_path(self) -> Path:
        """The answers of the first seed."""
        return self.run_dir / "answers-0.jsonl"

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.records_path.read_text(encoding="utf-8").splitlines()]

    def server(self) -> psutil.Process | None:
        """The process of the server that was started last."""
        try:
            last = max(self.run_dir.glob("start*/replica*/server.json"))
            return psutil.Process(json.loads(last.read_text())["pid"])
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None


def refusal(run: EvaluationRun, status: int, output: str) -> str:
    """The message of a refused evaluation: one line, after which nothing declared is there."""
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert status == 1, output
    assert len(errors) == 1, output
    assert "Traceback" not in output, output
    assert not run.records_path.exists()
    assert not run.provenance_path.exists()
    return errors[0]
