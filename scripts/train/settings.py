"""The settings of a stage: what may be chosen, what may not, and what contradicts itself.

`flags` holds what the user chooses, under ms-swift 4.6's own names. Model, data, template, seeds, resume and callbacks are
set in scripts/train/command.py and may not be chosen a second time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.common.errors import UserError
from scripts.train.flag_conflicts import flag_conflicts
from scripts.train.watch_files import WATCH_VARIABLE

# Set by scripts/train/command.py.
OWNED_FLAGS = frozenset({
    "model", "model_type", "template", "dataset", "val_dataset", "cached_dataset", "cached_val_dataset",
    "split_dataset_ratio", "output_dir", "add_version", "resume_from_checkpoint", "external_plugins",
    "custom_register_path", "strict", "check_model", "callbacks", "seed", "data_seed", "deepspeed", "use_cpu",
    "ddp_backend", "ignore_args_error", "create_checkpoint_symlink", "load_args", "logging_nan_inf_filter", "use_hf",
})  # fmt: skip

# Flags that would break what this program promises (exact resume, complete checkpoints, counted samples): the one value that
# does no harm, and why another one does.
REFUSED_FLAGS: dict[str, tuple[Any, str]] = {
    "streaming": (False, "a stream has no length, so samples could not be counted"),
    "packing": (False, "packed rows are not counted yet"),
    "sequence_parallel_size": (1, "split sequences are not counted yet"),
    "deepspeed_autotp_size": (None, "rows that several GPUs share are not counted yet"),
    "train_sampling_strategy": ("random", "ms-swift deals the rows itself; group_by_length is its own flag"),
    "safe_serialization": (True, "a checkpoint without safetensors cannot be exported"),
    "lisa_activated_layers": (0, "other layers would train from step to step, which the freeze flags do not say"),
    "save_only_model": (False, "such a checkpoint cannot be resumed"),
    "resume_only_model": (False, "a resumed run would differ from an uninterrupted one"),
    "ignore_data_skip": (False, "a resumed run would see samples twice"),
    "load_best_model_at_end": (False, "the last checkpoint is the one that is exported"),
    "enable_jit_checkpoint": (False, "vlgraft saves on signals itself"),
    "use_flash_ckpt": (False, "its checkpoints hold no safetensors"),
    "push_to_hub": (False, "nothing is uploaded during training"),
    "fsdp": (None, "its checkpoints are not supported; use deepspeed"),
    "auto_find_batch_size": (False, "the batch size is part of the result"),
    "max_epochs": (None, "use num_train_epochs"),
    "early_stop_interval": (None, "a training ends with its last step"),
    "new_special_tokens": (None, "the checkpoint would have weights that its input does not have"),
    "quant_method": (None, "weights that are all trained are not quantised"),
    "quant_bits": (None, "weights that are all trained are not quantised"),
    "adapters": ([], "a stage starts from the whole of its input; there are no adapters beside it"),
    "rope_scaling": (
        None,
        "the exported config.json would not say so; write it into a copy of the donor's config.json",
    ),
    "task_type": ("causal_lm", "the model answers in text"),
}

# With group_by_length, the value that a flag may not have, and what to do.
CONTRADICTIONS_OF_GROUPING = (
    ("train_dataloader_shuffle", False, "rows are shuffled within their groups; remove one of them"),
    ("lazy_tokenize", True, "the rows' lengths must be known before; remove it"),
)

OWNED_VARIABLES = frozenset({
    "NPROC_PER_NODE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE",
    "LOCAL_WORLD_SIZE", "USE_HF", "HF_HUB_OFFLINE", "DS_ACCELERATOR", "TORCH_EXTENSIONS_DIR", "MODELSCOPE_CACHE",
    WATCH_VARIABLE,
})  # fmt: skip

# ms-swift's defaults (swift/arguments/tuner_args.py).
FREEZE_DEFAULTS = {"freeze_vit": True, "freeze_aligner": True, "freeze_llm": False}

SETTINGS_NAME = "settings.json"  # in an exported checkpoint

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # ms-swift's name -> safetensors'


@dataclass(frozen=True)
class StageSettings:
    """The section `stage1` or `stage2` of the configuration; config/schema.yaml describes each key."""

    datasets: list[str]
    deepspeed: str | None
    environment: Mapping[str, str | int | float]
    flags: Mapping[str, Any]
    num_nodes: int
    num_processes_per_node: int

    @property
    def num_processes(self) -> int:
        return self.num_nodes * self.num_processes_per_node

    @property
    def uses_torchrun(self) -> bool:
        """One process is started directly, but DeepSpeed needs a process group even then."""
        return self.num_processes > 1 or self.deepspeed is not None

    def freezes(self, flag: str) -> bool:
        """Whether `freeze_vit`, `freeze_aligner` or `freeze_llm` is on."""
        return bool(self.flags.get(flag, FREEZE_DEFAULTS[flag]))


def check_settings(stage: str, settings: StageSettings) -> None:
    """Raises UserError with the first finding."""
    for finding in findings(stage, settings):
        raise UserError(finding)


def findings(stage: str, settings: StageSettings) -> Iterator[str]:
    """What makes the settings unusable, one line each, beginning with the key."""
    for variable in settings.environment:
        if variable in OWNED_VARIABLES:
            yield f"{stage}.environment.{variable}: set by vlgraft itself; remove it"
    yield from _refused_flags(f"{stage}.flags", settings.flags)
    yield from _freeze_contradictions(stage, settings)
    yield from _idle_groups(stage, settings)
    flags = settings.flags
    for flag, value, reason in CONTRADICTIONS_OF_GROUPING:
        if flags.get("group_by_length") and flags.get(flag) is value:
            yield f"{stage}.flags.{flag}: {str(value).lower()} contradicts group_by_length; {reason}"
    if (flags.get("max_steps") is None) == (flags.get("num_train_epochs") is None):
        yield f"{stage}.flags: give exactly one of max_steps and num_train_epochs"
    if flags.get("torch_dtype") == "float32" and (flags.get("bf16") or flags.get("fp16")):
        yield f"{stage}.flags.torch_dtype: float32 contradicts bf16/fp16: true"
    yield from flag_conflicts(f"{stage}.flags", flags, settings.deepspeed)


def _refused_flags(where: str, flags: Mapping[str, Any]) -> Iterator[str]:
    for flag, value in flags.items():
        if flag in OWNED_FLAGS:
            yield f"{where}.{flag}: set by vlgraft itself from the rest of the configuration; remove it"
        harmless, reason = REFUSED_FLAGS.get(flag, (value, ""))
        if value is not None and (type(value), value) != (type(harmless), harmless):
            yield f"{where}.{flag}: {value} found; {reason}; remove it"
    if flags.get("tuner_type", "full") != "full":
        yield (
            f"{where}.tuner_type: {flags['tuner_type']} found, full expected; "
            "the next stage cannot start from an adapter"
        )
    if flags.get("save_strategy", "steps") not in ("steps", "epoch"):
        yield (
            f"{where}.save_strategy: {flags['save_strategy']} found, steps or epoch expected; "
            "without checkpoints nothing can be resumed"
        )
    if flags.get("save_total_limit") == 1:
        yield (
            f"{where}.save_total_limit: 1 found, at least 2 expected; ms-swift deletes the last complete checkpoint "
            "before the next one is known to be complete"
        )


def _idle_groups(stage: str, settings: StageSettings) -> Iterator[str]:
    """Learning rates with which a group that is to train would not change, which the proof after the last step would refuse."""
    for flag, freeze_flag in (("vit_lr", "freeze_vit"), ("aligner_lr", "freeze_aligner")):
        rate = settings.flags.get(flag)
        if isinstance(rate, int | float) and rate <= 0 and not settings.freezes(freeze_flag):
            yield f"{stage}.flags.{flag}: {rate} found, so nothing of it would change; raise it, or write {freeze_flag}: true"


def _freeze_contradictions(stage: str, settings: StageSettings) -> Iterator[str]:
    frozen = {flag: settings.freezes(flag) for flag in FREEZE_DEFAULTS}
    if all(frozen.values()):
        yield f"{stage}.flags: freeze_vit, freeze_llm and freeze_aligner are all true, so nothing would train"
    if stage == "stage1" and frozen != {"freeze_vit": True, "freeze_aligner": False, "freeze_llm": True}:
        yield (
            "stage1.flags: stage 1 trains the aligner alone; expected freeze_vit: true, freeze_llm: true, "
            "freeze_aligner: false"
        )


def torch_dtype(stage: str, settings: StageSettings, model_config: Mapping[str, Any]) -> str:
    """The dtype of the weights in training: the flag, or the checkpoint's own."""
    text_config = model_config.get("text_config")
    in_text = text_config.get("dtype") if isinstance(text_config, Mapping) else None
    dtype = settings.flags.get("torch_dtype") or model_config.get("dtype") or model_config.get("torch_dtype") or in_text
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(
            f"{stage}.flags.torch_dtype: {dtype} found, one of {', '.join(DTYPES)} expected; "
            "name the dtype of the checkpoint"
        )
    return dtype


@dataclass(frozen=True)
class ExportedSettings:
    """settings.json of an exported checkpoint: what it was trained with."""

    stage: str
    seed: int
    datasets: list[str]
    deepspeed: str | None
    environment: Mapping[str, str | int | float]
    flags: Mapping[str, Any]
    num_nodes: int
    num_processes_per_node: int
