"""One training run: where it lives, what identifies it, and how far it came."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.safetensors_files import read_checkpoint
from scripts.train.checkpoints import step_of, trainer_state
from scripts.train.command import DTYPES, torch_dtype
from scripts.train.step_records import read_lines

# Flags without any influence on the weights: changing them goes on with the same training.
FLAGS_WITHOUT_INFLUENCE = frozenset({
    "save_steps", "save_strategy", "save_total_limit", "logging_steps", "logging_strategy", "logging_first_step",
    "report_to", "dataset_num_proc", "dataloader_num_workers", "dataloader_prefetch_factor",
    "dataloader_persistent_workers", "dataloader_pin_memory", "disable_tqdm", "logging_dir", "run_name", "ddp_timeout",
})  # fmt: skip

# A first failure may be a node's; a second one at the same step is the training's own.
NUM_STARTS_IN_VAIN = 2


@dataclass(frozen=True)
class Run:
    """One training run: where it lives, and what it is a training of."""

    stage: str
    settings: Mapping[str, Any]
    seed: int
    model_dir: Path
    model_config: Mapping[str, Any]
    dataset: Path
    num_rows: int
    run_dir: Path  # WORK_DIR/SIGNATURE
    log: Path
    python: Path  # of the environment that trains

    @property
    def trainer_dir(self) -> Path:
        return self.run_dir / "trainer"

    @property
    def watch_dir(self) -> Path:
        return self.run_dir / "watch"

    @property
    def rank_logs_dir(self) -> Path:
        return self.run_dir / "rank_logs"

    @property
    def attempts_path(self) -> Path:
        return self.run_dir / "attempts.jsonl"

    @property
    def failures_path(self) -> Path:
        return self.run_dir / "failures.jsonl"


def signature_of(settings: Mapping[str, Any], seed: int, model: str, dataset: str, versions: Mapping[str, str]) -> str:
    """What determines the trained weights, as 16 hexadecimal digits."""
    flags = {name: value for name, value in settings["flags"].items() if name not in FLAGS_WITHOUT_INFLUENCE}
    keys = ("num_nodes", "num_processes_per_node", "deepspeed", "environment")
    parts = {key: settings[key] for key in keys} | {"flags": flags, "seed": seed, "model": model, "dataset": dataset}
    text = json.dumps(parts | {"versions": dict(versions)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_dtype(stage: str, settings: Mapping[str, Any], model_config: Mapping[str, Any], model_dir: Path) -> None:
    """Raises UserError when the trained weights could not have the dtypes of the input's."""
    dtype = torch_dtype(stage, settings, model_config)
    for tensor in read_checkpoint(model_dir).values():
        if tensor.dtype != DTYPES[dtype]:
            raise UserError(
                f"{stage}.flags.torch_dtype: {dtype} found, but {tensor.name} in {model_dir} is {tensor.dtype}; "
                "train in the checkpoint's own dtype"
            )


def check_progress(run: Run, attempt: int, step: int) -> None:
    """Raises UserError when this command has started the trainer in vain too often to try once more.

    `attempt` counts from 1 each time a person gives the command; the scheduler's resubmissions raise it.
    """
    # A job that Slurm has put back starts several times, and this job may be one. Without Slurm each start is a job.
    last_of_job = {start["slurm_job_id"] or number: start for number, start in enumerate(read_lines(run.attempts_path))}
    last_of_job.pop(os.environ.get("SLURM_JOB_ID"), None)
    own_starts = list(last_of_job.values())[1 - attempt :] if attempt > 1 else []
    num_in_vain = sum(start["resume_step"] == step for start in own_starts)
    if num_in_vain < NUM_STARTS_IN_VAIN:
        return
    failures = list(read_lines(run.failures_path))
    since_s = own_starts[-1]["start_time_s"]
    reason = (
        failures[-1]["message"]
        if failures and failures[-1]["time_s"] >= since_s
        else ("the last one ended without a word, as a process does that is killed for want of memory or with its node")
    )
    raise UserError(
        f"{run.stage}: {num_in_vain} starts in a row came to no checkpoint beyond step {step}, so this one was not made; "
        f"expected a checkpoint in each job; save more often (save_steps), ask for more time or memory, or mend what the "
        f"last one said, then give the same command again. It said: {reason}"
    )


def record_start(run: Run, resume_from: Path | None) -> None:
    """Adds a line to the record of the trainer's starts."""
    with open(run.attempts_path, "a", encoding="utf-8") as attempts:
        attempt = {
            "start_time_s": time.time(),
            "resume_step": step_of(resume_from) if resume_from else 0,
            "host": socket.gethostname(),
            "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        }
        attempts.write(json.dumps(attempt) + "\n")


def is_finished(checkpoint: Path) -> bool:
    state = trainer_state(checkpoint)
    return bool(state["global_step"] == state["max_steps"] == step_of(checkpoint))
