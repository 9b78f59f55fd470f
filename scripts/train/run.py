"""One training: what it trains, where it lives, and what identifies it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.donors.safetensors_files import read_checkpoint
from scripts.train.settings import DTYPES, StageSettings, torch_dtype
from scripts.train.watch_files import WatchDir

# Flags without any influence on the weights: the same training goes on when they change.
FLAGS_WITHOUT_INFLUENCE = frozenset({
    "save_steps", "save_strategy", "save_total_limit", "logging_steps", "logging_strategy", "logging_first_step",
    "report_to", "dataset_num_proc", "dataloader_num_workers", "dataloader_prefetch_factor",
    "dataloader_persistent_workers", "dataloader_pin_memory", "disable_tqdm", "logging_dir", "run_name", "ddp_timeout",
    "load_from_cache_file", "max_shard_size",
})  # fmt: skip

# Variables of the same kind: logs, caches, the allocator, and how NCCL finds its way. How it adds up is another matter.
_VARIABLE_WITHOUT_INFLUENCE = re.compile(
    r"NCCL_(?!ALGO$|PROTO$|NTHREADS$|M(?:IN|AX)_N?C(?:HANNELS|TAS)$|NVLS_|COLLNET_)\w+|TORCH_NCCL_\w+|(?:GLOO|TP)_SOCKET_IFNAME"
    r"|PYTORCH_(?:CUDA_|HIP_)?ALLOC_CONF|PYTORCH_NO_CUDA_MEMORY_CACHING|TORCH_(?:DISTRIBUTED_DEBUG|CPP_LOG_LEVEL|LOGS)|LOG_LEVEL"
    r"|(?:TRANSFORMERS|DATASETS|DIFFUSERS)_VERBOSITY|(?:WANDB|SWANLAB|TENSORBOARD|MLFLOW)_\w+|TOKENIZERS_PARALLELISM"
    r"|(?:HF|XDG|TRITON|TORCHINDUCTOR)_\w*(?:HOME|CACHE|CACHE_DIR)|TMPDIR|MALLOC_ARENA_MAX"
)


@dataclass(frozen=True)
class Run:
    """One training. Its paths are absolute, because ms-swift takes a relative path that is missing for a hub id."""

    stage: str
    settings: StageSettings
    seed: int
    model_dir: Path
    model_config: Mapping[str, Any]
    dataset: Path
    num_rows: int
    run_dir: Path  # WORK_DIR/SIGNATURE
    log: Path
    python: Path  # of the environment that trains

    @property
    def signature(self) -> str:
        return self.run_dir.name

    @property
    def trainer_dir(self) -> Path:
        """The trainer's checkpoints."""
        return self.run_dir / "trainer"

    @property
    def watch(self) -> WatchDir:
        return WatchDir(self.run_dir / "watch")

    @property
    def cache_dir(self) -> Path:
        """Compiled extensions and copies of the data set."""
        return self.run_dir / "cache"

    @property
    def rank_logs_dir(self) -> Path:
        """The output of each rank, in files of its own."""
        return self.run_dir / "rank_logs"

    @property
    def command_path(self) -> Path:
        """The trainer's last command, as JSON."""
        return self.run_dir / "command.json"


def signed_text(
    settings: StageSettings, seed: int, model_sha256: str, dataset_sha256: str, versions: Mapping[str, str]
) -> str:
    """All that determines the trained weights, as JSON. Other text is another training, which begins anew."""
    flags = {name: value for name, value in settings.flags.items() if name not in FLAGS_WITHOUT_INFLUENCE}
    parts = {
        "num_nodes": settings.num_nodes,
        "num_processes_per_node": settings.num_processes_per_node,
        "deepspeed": settings.deepspeed,
        "environment": {
            name: value
            for name, value in settings.environment.items()
            if not _VARIABLE_WITHOUT_INFLUENCE.fullmatch(name)
        },
        "flags": flags,
        "seed": seed,
        "model": model_sha256,
        "dataset": dataset_sha256,
        "versions": dict(versions),
    }
    return json.dumps(parts, sort_keys=True)


def signature_of(
    settings: StageSettings, seed: int, model_sha256: str, dataset_sha256: str, versions: Mapping[str, str]
) -> str:
    """16 hexadecimal digits that identify a training."""
    text = signed_text(settings, seed, model_sha256, dataset_sha256, versions)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_dtype(stage: str, settings: StageSettings, model_config: Mapping[str, Any], model_dir: Path) -> None:
    """Raises UserError when the trained weights could not have the dtypes of the input's."""
    dtype = torch_dtype(stage, settings, model_config)
    for tensor in read_checkpoint(model_dir).values():
        if tensor.dtype != DTYPES[dtype]:
            raise UserError(
                f"{stage}.flags.torch_dtype: {dtype} found, but {tensor.name} in {model_dir} is {tensor.dtype}; "
                "train in the checkpoint's own dtype"
            )
