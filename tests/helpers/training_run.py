"""Runs scripts/train/train.py on a small model and a few random pictures, and interrupts it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from helpers.processes import LIMIT_S, is_running, wait_for

# Rows, batches and steps: two epochs, the last step of each with a smaller batch, so an interruption in the second
# epoch meets every corner of the sampler.
NUM_ROWS = 46
NUM_STEPS = 24
QUESTION = "<image>Question: Which digit?\nOptions:\nA. 1\nB. 2\nC. 3\nD. 4\nPlease select the correct answer. \n"


def write_dataset(directory: Path, num_rows: int = NUM_ROWS) -> Path:
    """Pictures of noise (56 x 56, four merged tokens each) with a letter to answer; every third row has no picture."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(num_rows):
        path = directory / f"{number}.png"
        noise = bytes((number * 7919 + i * i * 31 + i * 17) % 256 for i in range(56 * 56 * 3))
        Image.frombytes("RGB", (56, 56), noise).save(path)
        answer = {"role": "assistant", "content": "ABCD"[number % 4]}
        if number % 3 == 2:
            question = {"role": "user", "content": f"{number} {QUESTION.removeprefix('<image>')}"}
            rows.append({"messages": [question, answer]})
        else:
            rows.append({"messages": [{"role": "user", "content": QUESTION}, answer], "images": [str(path)]})
    dataset = directory / "data.jsonl"
    dataset.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return dataset


def graft(root: Path, vl_dir: Path, llm_dir: Path, architecture: str, target_dir: Path) -> Path:
    """A grafted checkpoint of three small shards, by the programs that make the real one."""
    settings = {
        "architecture": architecture,
        "aligner": "fresh",
        "calibration": "none",
        "max_shard_gb": 0.001,
        "link": "auto",
    }
    donors = ["--vl-dir", str(vl_dir), "--llm-dir", str(llm_dir), "--settings", json.dumps(settings)]
    config = ["--model-config", str(target_dir / "config.json"), "--seed", "0"]
    place = ["--model-code-dir", "model/qwen2_5_vl_qwen3", "--output-dir", str(target_dir)]
    python = str(root / ".venv/bin/python")
    for command in (
        ["scripts", "graft.derive_config", *donors, "--output", str(target_dir / "config.json")],
        ["scripts", "graft.graft", *donors, *config, *place],
    ):
        subprocess.run([python, *command], cwd=root, check=True, capture_output=True)
    return target_dir


def stage_settings(**changes: Any) -> dict[str, Any]:
    """A stage's section; `flags` among the changes are added to the usual ones."""
    flags = {
        "freeze_vit": False, "freeze_llm": False, "freeze_aligner": False, "learning_rate": 0.003,
        "num_train_epochs": 2, "save_steps": 6, "logging_steps": 1, "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2, "max_length": 512, "gradient_checkpointing": False,
        "dataloader_num_workers": 0, "attn_impl": "sdpa", "max_shard_size": "1MB",
    }  # fmt: skip
    settings: dict[str, Any] = {"datasets": ["data.jsonl"], "num_nodes": 1, "num_processes_per_node": 1}
    settings["deepspeed"] = None
    settings |= {"environment": {"OMP_NUM_THREADS": 1}, "flags": flags | changes.pop("flags", {})}
    return settings | changes


@dataclass
class TrainingRun:
    """One stage in a directory of its own."""

    root: Path
    train_python: Path
    directory: Path
    model_dir: Path
    dataset: Path
    settings: dict[str, Any] = field(default_factory=stage_settings)
    stage: str = "stage2"
    seed: int = 3
    dataset_check: Path | None = None

    @property
    def work_dir(self) -> Path:
        return self.directory / "work"

    @property
    def run_dir(self) -> Path:
        (run_dir,) = self.work_dir.iterdir()
        return run_dir

    @property
    def checkpoint_dir(self) -> Path:
        return self.directory / "out" / "checkpoint"

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.directory / "out" / "metrics.json").read_text())

    @property
    def log_text(self) -> str:
        return (self.directory / "train.log").read_text(errors="replace")

    def weights(self) -> dict[str, bytes]:
        """The bytes of each exported weight file."""
        files = sorted(self.checkpoint_dir.glob("*.safetensors"))
        assert files, f"{self.checkpoint_dir}: no weights"
        return {path.name: path.read_bytes() for path in files}

    def step_lines(self) -> list[int]:
        """The steps that rank 0 has recorded, in the order of their running; one that ran twice is there twice."""
        lines = [
            line for path in self.work_dir.glob("*/watch/steps-rank0.jsonl") for line in path.read_text().splitlines()
        ]
        return [json.loads(line)["step"] for line in lines if line.endswith("}")]

    def steps_done(self) -> int:
        """The step that ran last."""
        return [0, *self.step_lines()][-1]

    def after_steps(self, num_steps: int) -> Callable[[], bool]:
        """True once so many more steps have run than by now."""
        before = len(self.step_lines())
        return lambda: len(self.step_lines()) >= before + num_steps

    def start(self) -> subprocess.Popen[str]:
        self.directory.mkdir(parents=True, exist_ok=True)
        options = {
            "stage": self.stage, "model-dir": self.model_dir, "dataset": self.dataset, "seed": self.seed,
            "work-dir": self.work_dir, "output-dir": self.directory / "out", "log": self.directory / "train.log",
            "settings": json.dumps(self.settings), "train-python": self.train_python,
        }  # fmt: skip
        if self.dataset_check:
            options["dataset-check"] = self.dataset_check
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, "scripts", "train.train", *arguments]
        return subprocess.Popen(command, cwd=self.root, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def run(self, status: int = 0) -> str:
        """Runs to the end and gives what was said; fails with it when the exit status is another one."""
        process = self.start()
        said = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == status, said + self.log_tail()
        return said

    def interrupted(self, sign: Callable[[], bool], send: Callable[[int], None]) -> str:
        """Starts, calls `send` with the launcher's pid once `sign()` is true, and gives what was said until the end."""
        process = self.start()
        deadline = time.monotonic() + LIMIT_S
        while not sign():
            assert process.poll() is None, f"ended before it was interrupted: {process.stderr.read()}"  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "the moment to interrupt did not come" + self.log_tail()
            time.sleep(0.001)
        send(process.pid)
        said = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode != 0, said
        return said

    def log_tail(self) -> str:
        path = self.directory / "train.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def rank_pids(self) -> list[int]:
        pids = [json.loads(path.read_text())["pid"] for path in self.work_dir.glob("*/watch/rank*.json")]
        return [pid for pid in pids if is_running(pid)]

    def kill_everything(self, launcher_pid: int) -> None:
        """What a power cut does to the processes."""
        pids = self.rank_pids()
        for pid in [launcher_pid, *pids]:
            os.killpg(pid, signal.SIGKILL)
        wait_for(lambda: not any(is_running(pid) for pid in pids), "the end of what was killed")


def sender(number: signal.Signals) -> Callable[[int], None]:
    return lambda pid: os.kill(pid, number)
