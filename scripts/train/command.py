"""The command that trains one stage: settings and checkpoint configuration in, argument list and environment out.

Pure: nothing is started, read or written here. `settings.flags` holds what the user chooses, under ms-swift 4.6's own
names; everything else (model, data, template, seeds, resume, callbacks) is set here and may not be chosen twice.

One process is started directly, several through torch.distributed.run. Never through the `swift` wrapper: a signal ends
the wrapper alone and leaves its trainer running.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.swift import flag_arguments, model_type, template

WATCH_CALLBACK = "vlgraft_watch"  # registered by common/training_watch.py

WATCH_VARIABLE = "VLGRAFT_WATCH"  # names the file that tells the callback what to expect

# Set below, from the rest of the settings.
OWNED_FLAGS = frozenset({
    "model", "model_type", "template", "dataset", "val_dataset", "cached_dataset", "cached_val_dataset",
    "split_dataset_ratio", "output_dir", "add_version", "resume_from_checkpoint", "external_plugins",
    "custom_register_path", "strict", "check_model", "callbacks", "seed", "data_seed", "deepspeed", "use_cpu",
    "ddp_backend", "ignore_args_error", "create_checkpoint_symlink", "load_args", "logging_nan_inf_filter", "use_hf",
})  # fmt: skip

# What would break a promise of this launcher (exact resume, whole checkpoints, counted samples): the value that does
# not, and why another would.
REFUSED_FLAGS: dict[str, tuple[Any, str]] = {
    "streaming": (False, "a stream has no length, so samples could not be counted"),
    "packing": (False, "packed rows are not counted yet"),
    "sequence_parallel_size": (1, "split sequences are not counted yet"),
    "save_only_model": (False, "such a checkpoint cannot be resumed"),
    "resume_only_model": (False, "a resumed run would differ from an uninterrupted one"),
    "ignore_data_skip": (False, "a resumed run would see samples twice"),
    "load_best_model_at_end": (False, "the last checkpoint is the one that is exported"),
    "enable_jit_checkpoint": (False, "signals are handled here, and exactly"),
    "use_flash_ckpt": (False, "its checkpoints hold no safetensors"),
    "push_to_hub": (False, "nothing leaves the machine"),
    "fsdp": (None, "its checkpoints are not handled here; use deepspeed"),
    "auto_find_batch_size": (False, "the batch size is part of the result"),
    "max_epochs": (None, "say num_train_epochs"),
}

OWNED_VARIABLES = frozenset({
    "NPROC_PER_NODE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE",
    "LOCAL_WORLD_SIZE", "USE_HF", "HF_HUB_OFFLINE", "DS_ACCELERATOR", "TORCH_EXTENSIONS_DIR", "MODELSCOPE_CACHE",
    WATCH_VARIABLE,
})  # fmt: skip

# How each line of a rank begins in the common log.
RANK_PREFIX = "[rank{}]: "

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # ms-swift's name -> safetensors'


@dataclass(frozen=True)
class SwiftCommand:
    """`argv`, and what the trainer's environment has beside the inherited one."""

    argv: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class TrainingPaths:
    """Where everything lies; all absolute, because a relative path that is missing is taken for a hub id."""

    python: Path
    sft_script: Path  # swift/cli/sft.py of the train environment
    model_plugin: Path  # model/qwen2_5_vl_qwen3/swift_plugin.py
    watch_plugin: Path  # scripts/train/watch.py
    model_dir: Path
    dataset: Path
    output_dir: Path  # the trainer's checkpoints
    cache_dir: Path  # compiled extensions and data set caches of this run
    rank_logs_dir: Path  # what each rank prints, in files of its own
    watch_settings: Path


def check_settings(stage: str, settings: Mapping[str, Any]) -> None:
    """Raises UserError for flags and variables that are the launcher's own, or that would break its promises."""
    for flag, value in settings["flags"].items():
        key = f"{stage}.flags.{flag}"
        if flag in OWNED_FLAGS:
            raise UserError(f"{key}: set by the launcher from the rest of the settings; remove it")
        harmless, reason = REFUSED_FLAGS.get(flag, (value, ""))
        if value is not None and (type(value), value) != (type(harmless), harmless):
            raise UserError(f"{key}: {value} found; {reason}; remove it")
    for variable in settings["environment"]:
        if variable in OWNED_VARIABLES:
            raise UserError(
                f"{stage}.environment.{variable}: set by the launcher from the rest of the settings; remove it"
            )
    flags = settings["flags"]
    if flags.get("tuner_type", "full") != "full":
        raise UserError(
            f"{stage}.flags.tuner_type: {flags['tuner_type']} found, full expected; "
            "an adapter is no checkpoint that the next stage could start from"
        )
    if flags.get("save_strategy", "steps") not in ("steps", "epoch"):
        raise UserError(
            f"{stage}.flags.save_strategy: {flags['save_strategy']} found, steps or epoch expected; "
            "without checkpoints nothing can be resumed"
        )
    if flags.get("save_total_limit") == 1:
        raise UserError(
            f"{stage}.flags.save_total_limit: 1 found, at least 2 expected; ms-swift deletes the last whole checkpoint "
            "before the next one is known to be whole"
        )


def torch_dtype(stage: str, settings: Mapping[str, Any], model_config: Mapping[str, Any]) -> str:
    """The dtype of the weights in training: the flag, or the checkpoint's own."""
    text_config = model_config.get("text_config") or {}
    dtype = settings["flags"].get("torch_dtype") or model_config.get("dtype") or model_config.get("torch_dtype")
    dtype = dtype or text_config.get("dtype")
    if dtype not in DTYPES:
        raise UserError(
            f"{stage}.flags.torch_dtype: {dtype} found, one of {', '.join(DTYPES)} expected; "
            "name the dtype of the checkpoint"
        )
    return str(dtype)


def torchrun_arguments(
    settings: Mapping[str, Any], rendezvous: str, rendezvous_id: str, rank_logs_dir: Path
) -> list[str]:
    """torch.distributed.run's own flags. `rendezvous` is HOST:PORT; port 0 lets the kernel choose a free one.

    `rendezvous_id` is this start's alone: an agent that finds somebody else's store at a port which was free a moment
    before does not join their ranks.

    SIGTERM is not among the signals that torchrun handles: it would give the ranks 30 s and then kill them in the
    midst of a checkpoint. SIGUSR2 is how the launcher ends everything at once (see common/process_group.py).
    """
    num_nodes = settings["num_nodes"]
    arguments = ["--nnodes", str(num_nodes), "--nproc_per_node", str(settings["num_processes_per_node"])]
    arguments += ["--rdzv_backend", "c10d", "--rdzv_endpoint", rendezvous, "--rdzv_id", rendezvous_id]
    if num_nodes == 1:
        arguments += ["--local_addr", rendezvous.rpartition(":")[0]]
    arguments += ["--log-dir", str(rank_logs_dir), "--tee", "3"]  # stdout and stderr, to files and to the common log
    return [*arguments, "--max_restarts", "0", "--signals_to_handle", "SIGUSR2"]


def uses_torchrun(settings: Mapping[str, Any]) -> bool:
    """One process is started directly; DeepSpeed wants a process group even then."""
    return settings["num_nodes"] * settings["num_processes_per_node"] > 1 or settings["deepspeed"] is not None


def build_sft_command(
    stage: str,
    settings: Mapping[str, Any],
    model_config: Mapping[str, Any],
    paths: TrainingPaths,
    *,
    seed: int,
    device: str,
    resume_from: Path | None = None,
    first_gpu: str = "0",
    rendezvous: str = "127.0.0.1:0",
    rendezvous_id: str = "vlgraft",
    node_launcher: Sequence[str] = (),
) -> SwiftCommand:
    """The whole command of one stage.

    `device` is cuda or cpu, `first_gpu` the one that a single process uses; `node_launcher` (srun …) stands before
    torchrun when there are several nodes.
    """
    check_settings(stage, settings)
    on_cpu = device == "cpu"
    dtype = torch_dtype(stage, settings, model_config)
    template_name = template(model_config)
    plugins = [str(paths.watch_plugin)]
    if "qwen2_5_vl_qwen3" in (model_type(model_config), template_name):
        plugins.insert(0, str(paths.model_plugin))

    owned: dict[str, Any] = {
        "model": str(paths.model_dir),
        "model_type": model_type(model_config),
        "template": template_name,
        "external_plugins": plugins,
        "callbacks": [WATCH_CALLBACK],
        "dataset": str(paths.dataset),
        "split_dataset_ratio": 0,
        "strict": True,  # or an unreadable row is silently replaced by another one
        "output_dir": str(paths.output_dir),
        "add_version": False,
        "check_model": False,
        "seed": seed,
        "data_seed": seed,
        "logging_nan_inf_filter": False,  # or a loss that is not a number is logged as the mean of the others
        "resume_from_checkpoint": None if resume_from is None else str(resume_from),
        "deepspeed": settings["deepspeed"],
    }
    chosen: dict[str, Any] = {
        "tuner_type": "full",  # ms-swift's default is lora
        "report_to": "none",
        **settings["flags"],
        "torch_dtype": dtype,
    }
    if dtype == "float32":  # or ms-swift switches mixed precision (fp16) on
        chosen = {"fp16": False, "bf16": False, **chosen}
    if on_cpu:
        owned["use_cpu"] = True
        if str(chosen.get("attn_impl", "")).startswith("flash"):
            raise UserError(
                f"{stage}.flags.attn_impl: {chosen['attn_impl']} found, but there is no GPU here; write sdpa"
            )

    environment = {name: str(value) for name, value in settings["environment"].items()}
    environment |= {
        "USE_HF": "1",
        "HF_HUB_OFFLINE": "1",
        "MODELSCOPE_CACHE": str(paths.cache_dir / "modelscope"),  # where ms-swift keeps its copy of the data set
        "TORCH_EXTENSIONS_DIR": str(paths.cache_dir / "torch_extensions"),
        "PYTHONUNBUFFERED": "1",
        WATCH_VARIABLE: str(paths.watch_settings),
    }
    argv = [str(paths.python)]
    if uses_torchrun(settings):
        argv = [*node_launcher, str(paths.python), "-m", "torch.distributed.run"]
        argv += torchrun_arguments(settings, rendezvous, rendezvous_id, paths.rank_logs_dir)
        environment["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] = RANK_PREFIX.format("${rank}")
        if on_cpu:
            owned["ddp_backend"] = "gloo"
            environment["DS_ACCELERATOR"] = "cpu"
    elif not on_cpu:
        # One process would otherwise spread the model over every GPU that it sees.
        environment.setdefault("CUDA_VISIBLE_DEVICES", first_gpu)
    argv += [str(paths.sft_script), *flag_arguments(owned), *flag_arguments(chosen)]
    return SwiftCommand(argv, environment)
