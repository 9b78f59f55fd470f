"""Flags that fight each other, or need a library that is not there, are found before anything is made."""

from pathlib import Path
from typing import Any

import pytest

from scripts.train.flag_conflicts import flag_conflicts, locked_packages, text_conflicts


@pytest.mark.parametrize(
    ("flags", "finding"),
    [
        ({"padding_free": True, "attn_impl": "sdpa"}, "f.padding_free: true contradicts attn_impl: sdpa"),
        ({"padding_free": True}, "f.padding_free: true contradicts attn_impl: None"),
        ({"attn_impl": "flash"}, "f.attn_impl: flash found, one of eager, sdpa"),
        ({"eval_strategy": "steps"}, "f.eval_strategy: steps found, but no rows are held back"),
        ({"eval_strategy": "false"}, "f.eval_strategy: false found, one of no, steps, epoch expected"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau"},
            "f.lr_scheduler_type: reduce_lr_on_plateau found, one of linear",
        ),
        ({"logging_strategy": "never"}, "f.logging_strategy: never found"),
        ({"optimizer": "muonn"}, "f.optimizer: muonn found"),
        ({"truncation_strategy": "split"}, "f.truncation_strategy: split found"),
        ({"loss_scale": "last_round+reactt"}, "f.loss_scale: reactt found"),
        ({"report_to": "wandb"}, "f.report_to: wandb found, but the environment train has no wandb"),
        (
            {"report_to": ["tensorboard", "swanlab"]},
            "f.report_to: swanlab found, but the environment train has no swanlab",
        ),
        ({"report_to": "tensorbord"}, "f.report_to: tensorbord is unknown; expected one of all, none, tensorboard"),
        ({"optim": "adamw_8bit"}, "f.optim: adamw_8bit found, but the environment train has no bitsandbytes"),
        ({"optim": "adam"}, "f.optim: adam is unknown"),
        ({"tuner_backend": "unsloth"}, "f.tuner_backend: unsloth found"),
        ({"torch_dtype": "bfloat16", "fp16": True}, "f.fp16: true contradicts torch_dtype: bfloat16"),
        ({"torch_dtype": "float16", "bf16": True, "fp16": False}, "f.bf16: true contradicts torch_dtype: float16"),
        ({"fp16": True, "bf16": True}, "f.fp16: true contradicts bf16: true"),
        ({"fp16_full_eval": True, "bf16_full_eval": True}, "f.fp16_full_eval: true contradicts bf16_full_eval"),
        ({"torch_dtype": "float16"}, "f.torch_dtype: float16 found, whose gradients need deepspeed"),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, "f.warmup_ratio: 0.1 contradicts warmup_steps: 5"),
        ({"warmup_steps": -1}, "f.warmup_steps: -1 found"),
        ({"dataloader_num_workers": 0, "dataloader_prefetch_factor": 2}, "f.dataloader_prefetch_factor: contradicts"),
        ({"torch_empty_cache_steps": 0}, "f.torch_empty_cache_steps: 0 found"),
        ({"freeze_parameters_ratio": 1.0}, "f.freeze_parameters_ratio: 1.0 found; nothing would train"),
        ({"eval_on_start": True}, "f.eval_on_start: true found, but no rows are held back"),
        ({"system": "none/prompt.txt"}, "f.system: none/prompt.txt is not a file"),
        ({"system": r"one\ntwo"}, "f.system: a backslash before an n found"),
        ({"response_prefix": r"\n"}, "f.response_prefix: a backslash before an n found"),
        ({"zero_hpz_partition_size": 8}, "f.zero_hpz_partition_size: contradicts deepspeed: null"),
    ],
)
def test_flags_that_cannot_work_are_one_finding_that_begins_with_the_key(flags: dict[str, Any], finding: str) -> None:
    (found,) = flag_conflicts("f", flags, None)
    assert found.startswith(finding)


@pytest.mark.parametrize(
    ("flags", "deepspeed", "finding"),
    [
        ({"device_map": "auto"}, "zero2", "f.device_map: contradicts deepspeed: zero2"),
        ({"zero_hpz_partition_size": 8}, "zero2", "f.zero_hpz_partition_size: contradicts deepspeed: zero2"),
    ],
)
def test_flags_go_with_deepspeed(flags: dict[str, Any], deepspeed: str, finding: str) -> None:
    (found,) = flag_conflicts("f", flags, deepspeed)
    assert found.startswith(finding)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"padding_free": True, "attn_impl": "flash_attn"},
        {
            "report_to": ["tensorboard"],
            "optim": "adamw_torch_fused",
            "lr_scheduler_type": "cosine",
            "use_liger_kernel": True,
        },
        {"warmup_ratio": 0.05, "warmup_steps": 0, "dataloader_num_workers": 4, "dataloader_prefetch_factor": 2},
        {"torch_dtype": "bfloat16", "bf16": True, "fp16": False},
        {"system": "Say 'x' $(y) {z}\n.", "loss_scale": "last_round+react", "truncation_strategy": "left"},
    ],
)
def test_flags_that_go_together_are_taken(flags: dict[str, Any]) -> None:
    assert list(flag_conflicts("f", flags, None)) == []


def test_half_precision_goes_with_deepspeed() -> None:
    assert list(flag_conflicts("f", {"torch_dtype": "float16"}, "zero2")) == []


def test_a_system_prompt_in_a_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    assert [*text_conflicts("f", {"system": str(path)})] != []
    path.write_text("Be brief.")
    assert [*text_conflicts("f", {"system": str(path)})] == []


def test_a_library_that_the_lock_has_is_there(tmp_path: Path) -> None:
    lock = tmp_path / "train.lock"
    lock.write_text("# wandb==1\nswanlab==0.1 \\\n    --hash=sha256:0\nliger-kernel==1\n")
    assert locked_packages(lock) == {"swanlab", "liger-kernel"}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("adam_beta1", -1.0), ("adam_beta2", 1.0), ("adam_epsilon", -1.0), ("weight_decay", -1.0),
        ("label_smoothing_factor", 7.0),
        ("learning_rate", -1e-4), ("trainable_parameters_regex", "("), ("freeze_parameters_regex", "[a"),
        ("lr_scheduler_type", "cosine_with_min_lr"), ("lr_scheduler_type", "cosine_warmup_with_min_lr"),
    ],
)  # fmt: skip
def test_a_value_that_the_trainer_refuses_or_trains_rubbish_with_is_named_before(flag: str, value: object) -> None:
    (line,) = flag_conflicts("stage1.flags", {"attn_impl": "sdpa", flag: value}, None)
    assert line.startswith(f"stage1.flags.{flag}: ") and str(value) in line


def test_values_that_are_right_are_taken() -> None:
    flags = {
        "adam_beta2": 0.95, "weight_decay": 0.0, "label_smoothing_factor": 0.1, "max_grad_norm": 0.0,
        "trainable_parameters_regex": "visual\\..*", "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "gradient_checkpointing_kwargs": '{"use_reentrant": false}',
    }  # fmt: skip
    assert list(flag_conflicts("stage1.flags", flags, None)) == []
    assert list(flag_conflicts("stage1.flags", flags | {"lr_scheduler_kwargs": '{"min_lr": 1e-6}'}, None)) == []
