"""Flags of `swift sft` that fight each other, or need what is not there: found before donors, graft and data are made.

ms-swift 4.6 and transformers refuse most of these themselves, when the trainer starts (swift/arguments/sft_args.py,
swift/trainers/arguments.py, transformers/training_args.py, transformers/trainer_optimizer.py); the rest end in the first step.
A test of the environment `train` compares the tables with the libraries.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.common.root import ROOT

Flags = Mapping[str, Any]

# The values that are possible here; an evaluation during training is not (no rows are held back).
CHOICES: dict[str, tuple[str, ...]] = {
    "attn_impl": (
        "eager", "sdpa", "flex_attention", "flash_attn", "flash_attention_2", "flash_attention_3", "flash_attention_4",
    ),
    "eval_strategy": ("no", "steps", "epoch"),
    "logging_strategy": ("no", "steps", "epoch"),
    "loss_type": ("cross_entropy",),  # the others are of embeddings, rerankers and decisions
    "lr_scheduler_type": (
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
        "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
    ),
    "optimizer": ("default", "galore", "lorap", "muon", "muonclip", "multimodal"),
    "truncation_strategy": ("delete", "left", "right"),
}  # fmt: skip
FLASH_IMPLEMENTATIONS = tuple(name for name in CHOICES["attn_impl"] if name.startswith("flash"))

# The package that each needs; None: none beside torch.
REPORTING_PACKAGES: dict[str, str | None] = {
    "all": None, "none": None, "azure_ml": "azureml-core", "comet_ml": "comet-ml", "mlflow": "mlflow", "neptune": "neptune",
    "tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb", "codecarbon": "codecarbon", "clearml": "clearml",
    "dagshub": "dagshub", "flyte": "flytekit", "dvclive": "dvclive", "swanlab": "swanlab", "kubeflow": "kubeflow",
}  # fmt: skip
OPTIMIZER_PACKAGES: dict[str, str | None] = {
    "adamw_torch": None, "adamw_torch_fused": None, "adafactor": None, "sgd": None, "adagrad": None, "rmsprop": None,
    "adamw_torch_xla": "torch-xla", "adamw_torch_npu_fused": "torch-npu", "adamw_anyprecision": "torchdistx",
    "adamw_torch_4bit": "torchao", "adamw_torch_8bit": "torchao",
    **dict.fromkeys((
        "ademamix", "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit",
        "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit",
        "rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
    ), "bitsandbytes"),
    **dict.fromkeys((
        "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise",
        "galore_adafactor_layerwise",
    ), "galore-torch"),
    "lomo": "lomo-optim", "adalomo": "lomo-optim", "grokadamw": "grokadamw", "schedule_free_radam": "schedulefree",
    "schedule_free_adamw": "schedulefree", "schedule_free_sgd": "schedulefree", "apollo_adamw": "apollo-torch",
    "apollo_adamw_layerwise": "apollo-torch", "stable_adamw": "torch-optimi",
}  # fmt: skip

LOSS_SCALES = (
    "default", "last_round", "all", "base", "ignore_empty_think", "ignore_think_prefix", "react", "hermes", "qwen",
    "agentflan", "alpha_umi",
)  # fmt: skip


@functools.cache
def locked_packages(lock_path: Path) -> frozenset[str]:
    """Names of the packages that an environment is built from."""
    text = lock_path.read_text(encoding="utf-8")
    return frozenset(match.group(1) for match in re.finditer(r"^([A-Za-z0-9][\w.-]*)==", text, re.MULTILINE))


def _choices(flags: Flags) -> Iterator[tuple[str, str]]:
    for flag, choices in CHOICES.items():
        if flags.get(flag) is not None and flags[flag] not in choices:
            yield flag, f"{flags[flag]} found, one of {', '.join(choices)} expected"
    for part in str(flags.get("loss_scale", "default")).split("+"):
        if part not in LOSS_SCALES:
            yield (
                "loss_scale",
                f"{part} found, one of {', '.join(LOSS_SCALES)} expected, or several with + between them",
            )


def _listed(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, list) else [value])]


def _packages(flags: Flags) -> Iterator[tuple[str, str]]:
    wanted = [("report_to", name, REPORTING_PACKAGES) for name in _listed(flags.get("report_to", "none"))]
    wanted += [("optim", name, OPTIMIZER_PACKAGES) for name in _listed(flags.get("optim", "adamw_torch"))]
    for flag, name, packages in wanted:
        there = [each for each, package in packages.items() if package is None or package in _locked()]
        if name not in packages:
            yield flag, f"{name} is unknown; expected one of {', '.join(there)}"
        elif name not in there:
            yield (
                flag,
                f"{name} found, but the environment train has no {packages[name]} (envs/train.lock); expected one of "
                f"{', '.join(there)}",
            )
    if flags.get("use_liger_kernel") and "liger-kernel" not in _locked():
        yield (
            "use_liger_kernel",
            "true found, but the environment train has no liger-kernel (envs/train.lock); remove it",
        )
    if flags.get("tuner_backend") == "unsloth":
        yield "tuner_backend", "unsloth found, but the environment train does not have it; remove it"


def _locked() -> frozenset[str]:
    return locked_packages(ROOT / "envs" / "train.lock")


def _attention(flags: Flags) -> Iterator[tuple[str, str]]:
    attention = flags.get("attn_impl")
    if flags.get("padding_free") and attention not in FLASH_IMPLEMENTATIONS:
        yield (
            "padding_free",
            f"true contradicts attn_impl: {attention}; it works with {', '.join(FLASH_IMPLEMENTATIONS)} alone; remove it, or "
            "write one of them",
        )


def _precision(flags: Flags) -> Iterator[tuple[str, str]]:
    dtype = flags.get("torch_dtype")
    for flag, other_dtype in (("bf16", "float16"), ("fp16", "bfloat16")):
        if flags.get(flag) and dtype == other_dtype:
            yield flag, f"true contradicts torch_dtype: {dtype}; remove it"
    for first, second in (("fp16", "bf16"), ("fp16_full_eval", "bf16_full_eval")):
        if flags.get(first) and flags.get(second):
            yield first, f"true contradicts {second}: true; keep one"


# (least, below) of numbers that torch and transformers refuse only when the trainer has started, or take and train rubbish.
_RANGES: dict[str, tuple[float, float]] = {
    "adam_beta1": (0, 1),
    "adam_beta2": (0, 1),
    "adam_epsilon": (0, 1),
    "weight_decay": (0, 1e9),
    "label_smoothing_factor": (0, 1),
    "learning_rate": (0, 1e9),
    "max_grad_norm": (0, math.inf),
    "neftune_noise_alpha": (0, 1e9),
}
_PATTERNS = ("freeze_parameters_regex", "trainable_parameters_regex", "target_regex")


def _values(flags: Flags) -> Iterator[tuple[str, str]]:
    for flag, (least, below) in _RANGES.items():
        value = flags.get(flag)
        if isinstance(value, int | float) and not least <= value < below:
            yield flag, f"{value} found, {least} or more{f' and below {below:g}' if below == 1 else ''} expected"
    for flag in _PATTERNS:
        if isinstance(pattern := flags.get(flag), str):
            try:
                re.compile(pattern)
            except re.error as error:
                yield flag, f"{pattern!r} found, no pattern of Python's ({error}); correct it"
    needs_minimum = "min_lr" in str(flags.get("lr_scheduler_type"))
    given = flags.get("lr_scheduler_kwargs") or {}
    if needs_minimum and "min_lr" not in given and "min_lr_rate" not in given:
        yield (
            "lr_scheduler_type",
            f"{flags['lr_scheduler_type']} found without lr_scheduler_kwargs: {{min_lr_rate: …}}; add it",
        )


def _schedule(flags: Flags) -> Iterator[tuple[str, str]]:
    if flags.get("warmup_ratio") and flags.get("warmup_steps"):
        yield "warmup_ratio", f"{flags['warmup_ratio']} contradicts warmup_steps: {flags['warmup_steps']}; keep one"
    if (flags.get("warmup_steps") or 0) < 0:
        yield "warmup_steps", f"{flags['warmup_steps']} found, 0 or more expected"
    if flags.get("dataloader_num_workers") == 0 and flags.get("dataloader_prefetch_factor") is not None:
        yield (
            "dataloader_prefetch_factor",
            "contradicts dataloader_num_workers: 0, which fetches nothing ahead; remove it",
        )
    for flag in ("torch_empty_cache_steps", "dataloader_prefetch_factor"):
        if flags.get(flag) is not None and flags[flag] < 1:
            yield flag, f"{flags[flag]} found, 1 or more expected"
    if (flags.get("freeze_parameters_ratio") or 0) >= 1:
        yield "freeze_parameters_ratio", f"{flags['freeze_parameters_ratio']} found; nothing would train; remove it"
    for flag in ("eval_on_start", "do_eval", "do_predict", "eval_use_evalscope", "eval_strategy"):
        if (value := flags.get(flag)) is True or value in ("steps", "epoch"):
            found = "true" if value is True else value
            yield (
                flag,
                f"{found} found, but no rows are held back from the training; evaluate is a step of its own; remove it",
            )


def _texts(flags: Flags) -> Iterator[tuple[str, str]]:
    """ms-swift takes a text that ends in .txt for a file, and the two characters \\n for the end of a line."""
    system = flags.get("system")
    if isinstance(system, str) and system.endswith(".txt") and not Path(system).is_file():
        yield "system", f"{system} is not a file, and ms-swift takes what ends in .txt for one; end it in another way"
    for flag in ("system", "response_prefix"):
        if "\\n" in str(flags.get(flag, "")):
            yield flag, "a backslash before an n found, which ms-swift reads as the end of a line; write an end of line"


_CHECKS: tuple[Callable[[Flags], Iterator[tuple[str, str]]], ...] = (
    _choices, _packages, _attention, _precision, _values, _schedule, _texts,
)  # fmt: skip


def serving_conflicts(where: str, flags: Flags) -> Iterator[str]:
    """Values that a model server would end at."""
    yield from (f"{where}.{flag}: {fault}" for flag, fault in _choices(flags))


def text_conflicts(where: str, flags: Flags) -> Iterator[str]:
    """Texts that ms-swift would change on the way to the model; training and serving have the same."""
    yield from (f"{where}.{flag}: {fault}" for flag, fault in _texts(flags))


def _with_deepspeed(flags: Flags, deepspeed: str | None) -> Iterator[tuple[str, str]]:
    if deepspeed is None and flags.get("torch_dtype") == "float16" and flags.get("fp16", True):
        yield "torch_dtype", "float16 found, whose gradients need deepspeed; write bfloat16 or float32, or a deepspeed"
    if flags.get("device_map") is not None and deepspeed is not None:
        yield "device_map", f"contradicts deepspeed: {deepspeed}; remove one"
    if flags.get("zero_hpz_partition_size") is not None and not str(deepspeed).startswith("zero3"):
        yield (
            "zero_hpz_partition_size",
            f"contradicts deepspeed: {deepspeed or 'null'}; it goes with zero3 alone; remove it",
        )


def flag_conflicts(where: str, flags: Flags, deepspeed: str | None) -> Iterator[str]:
    """A line for each flag that cannot work with the others, or with what is installed."""
    for check in _CHECKS:
        yield from (f"{where}.{flag}: {fault}" for flag, fault in check(flags))
    yield from (f"{where}.{flag}: {fault}" for flag, fault in _with_deepspeed(flags, deepspeed))
