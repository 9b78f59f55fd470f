"""The command that trains one stage: argument list and environment of `swift sft`.

Nothing is started, read or written here. One process is started directly, several through torch.distributed.run. Never
through the `swift` wrapper: a signal ends the wrapper alone and leaves its trainer running.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.root import ROOT
from scripts.data.swift_model import MODEL_PLUGIN, model_type, template
from scripts.train.run import Run
from scripts.train.settings import torch_dtype
from scripts.train.swift_arguments import flag_arguments
from scripts.train.watch_files import WATCH_CALLBACK, WATCH_VARIABLE

WATCH_PLUGIN = ROOT / "scripts" / "train" / "watch.py"

# The name of the architecture and of the template that the model's plugin registers.
REGISTERED_NAME = "qwen2_5_vl_qwen3"

# How each line of a rank begins in the common log.
RANK_PREFIX = "[rank{}]: "


@dataclass(frozen=True)
class SwiftCommand:
    """`argv`, and what the trainer's environment has beside the inherited one."""

    argv: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Launch:
    """How one start of the trainer differs from the others."""

    sft_script: Path  # swift/cli/sft.py of the train environment
    device: str  # cuda or cpu
    first_gpu: str = "0"  # the one that a single process uses
    resume_from: Path | None = None
    node_launcher: Sequence[str] = ()  # srun …, before torchrun when there are several nodes
    # Different for each start: an agent that finds another training's store at its port does not join it.
    rendezvous_id: str = "vlgraft"


def torchrun_arguments(run: Run, rendezvous_id: str) -> list[str]:
    """torch.distributed.run's own flags. Where several nodes meet, they find out themselves (scripts/train/enter_node.py).

    SIGTERM is not among the signals that torchrun handles: it would give the ranks 30 s and then kill them in the middle of
    a checkpoint. SIGUSR2 is how the launcher ends everything at once (scripts/train/trainer_process.py).
    """
    num_nodes = run.settings.num_nodes
    arguments = ["--nnodes", str(num_nodes), "--nproc_per_node", str(run.settings.num_processes_per_node)]
    arguments += ["--rdzv_backend", "c10d", "--rdzv_id", rendezvous_id]
    if num_nodes == 1:
        arguments += ["--rdzv_endpoint", "127.0.0.1:0", "--local_addr", "127.0.0.1"]  # port 0: the kernel chooses
    arguments += ["--log-dir", str(run.rank_logs_dir), "--tee", "3"]  # stdout and stderr, to files and the common log
    return [*arguments, "--max_restarts", "0", "--signals_to_handle", "SIGUSR2"]


def owned_flags(run: Run, launch: Launch) -> dict[str, Any]:
    """The flags that are not the user's to choose."""
    needs_model_plugin = REGISTERED_NAME in (model_type(run.model_config), template(run.model_config))
    plugins = [MODEL_PLUGIN, WATCH_PLUGIN] if needs_model_plugin else [WATCH_PLUGIN]
    flags: dict[str, Any] = {
        "model": str(run.model_dir),
        "model_type": model_type(run.model_config),
        "template": template(run.model_config),
        "external_plugins": [str(path) for path in plugins],
        "callbacks": [WATCH_CALLBACK],
        "dataset": str(run.dataset),
        "split_dataset_ratio": 0,
        "strict": True,  # or an unreadable row is silently replaced by another one
        "output_dir": str(run.trainer_dir),
        "add_version": False,
        "check_model": False,
        "seed": run.seed,
        "data_seed": run.seed,
        "logging_nan_inf_filter": False,  # or a loss that is not a number is logged as the mean of the others
        "resume_from_checkpoint": None if launch.resume_from is None else str(launch.resume_from),
        "deepspeed": run.settings.deepspeed,
    }
    if launch.device == "cpu":
        flags["use_cpu"] = True
        if run.settings.uses_torchrun:
            flags["ddp_backend"] = "gloo"
    return flags


def chosen_flags(run: Run, launch: Launch) -> dict[str, Any]:
    """The user's flags over defaults that differ from ms-swift's."""
    dtype = torch_dtype(run.stage, run.settings, run.model_config)
    flags: dict[str, Any] = {
        "tuner_type": "full",  # ms-swift's default is lora
        "report_to": "none",
        **run.settings.flags,
        "torch_dtype": dtype,
    }
    if dtype == "float32":  # or ms-swift switches mixed precision (fp16) on
        flags = {"fp16": False, "bf16": False, **flags}
    if launch.device == "cpu" and str(flags.get("attn_impl", "")).startswith("flash"):
        raise UserError(
            f"{run.stage}.flags.attn_impl: {flags['attn_impl']} found, but there is no GPU here; write sdpa"
        )
    return flags


def trainer_environment(run: Run, launch: Launch) -> dict[str, str]:
    """The user's variables and ours."""
    environment = {name: str(value) for name, value in run.settings.environment.items()}
    environment |= {
        "USE_HF": "1",
        "HF_HUB_OFFLINE": "1",
        "MODELSCOPE_CACHE": str(run.cache_dir / "modelscope"),  # where ms-swift keeps its copy of the data set
        "TORCH_EXTENSIONS_DIR": str(run.cache_dir / "torch_extensions"),
        "PYTHONUNBUFFERED": "1",
        WATCH_VARIABLE: str(run.watch.settings),
    }
    if run.settings.uses_torchrun:
        environment["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] = RANK_PREFIX.format("${rank}")
        if launch.device == "cpu":
            environment["DS_ACCELERATOR"] = "cpu"
    elif launch.device != "cpu":
        # One process would otherwise spread the model over every GPU that it sees.
        environment.setdefault("CUDA_VISIBLE_DEVICES", launch.first_gpu)
    return environment


def build_sft_command(run: Run, launch: Launch) -> SwiftCommand:
    """The whole command of one stage, whose settings were checked before."""
    environment = trainer_environment(run, launch)
    argv = [str(run.python)]
    if run.settings.uses_torchrun:
        argv = [str(run.python), "-m", "torch.distributed.run", *torchrun_arguments(run, launch.rendezvous_id)]
    if launch.node_launcher:  # which would keep torch's variables from the other nodes
        argv = [*launch.node_launcher, "env", *(f"{name}={value}" for name, value in environment.items()), *argv]
    argv += [
        str(launch.sft_script),
        *flag_arguments(owned_flags(run, launch)),
        *flag_arguments(chosen_flags(run, launch)),
    ]
    return SwiftCommand(argv, environment)
