"""What a stage's settings may not say, and what follows from them."""

from typing import Any

import pytest

from helpers.stage import stage_settings
from scripts.common.errors import UserError
from scripts.train.settings import check_settings, findings, torch_dtype


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": "x"}, r"stage1\.flags\.model: set by vlgraft itself"),
        ({"ignore_args_error": True}, r"stage1\.flags\.ignore_args_error: set by vlgraft itself"),
        ({"seed": 1}, r"stage1\.flags\.seed: set by vlgraft itself"),
        ({"packing": True}, r"stage1\.flags\.packing: True found; packed rows are not counted"),
        ({"streaming": True}, r"stage1\.flags\.streaming"),
        ({"deepspeed_autotp_size": 2}, r"stage1\.flags\.deepspeed_autotp_size: 2 found; rows that several GPUs share"),
        (
            {"train_sampling_strategy": "group_by_length"},
            r"stage1\.flags\.train_sampling_strategy.*group_by_length is its",
        ),
        ({"safe_serialization": False}, r"stage1\.flags\.safe_serialization: False found; .* cannot be exported"),
        (
            {"early_stop_interval": 3},
            r"stage1\.flags\.early_stop_interval: 3 found; a training ends with its last step",
        ),
        ({"lisa_activated_layers": 2}, r"stage1\.flags\.lisa_activated_layers: 2 found; other layers would train"),
        ({"aligner_lr": 0.0}, r"stage1\.flags\.aligner_lr: 0\.0 found, so nothing of it would change"),
        (
            {"group_by_length": True, "train_dataloader_shuffle": False},
            r"stage1\.flags\.train_dataloader_shuffle: false contradicts group_by_length",
        ),
        (
            {"group_by_length": True, "lazy_tokenize": True},
            r"stage1\.flags\.lazy_tokenize: true contradicts group_by_length",
        ),
        ({"save_only_model": True}, r"stage1\.flags\.save_only_model.*cannot be resumed"),
        ({"tuner_type": "lora"}, r"stage1\.flags\.tuner_type: lora found, full expected"),
        ({"save_strategy": "no"}, r"stage1\.flags\.save_strategy: no found, steps or epoch expected"),
        ({"save_total_limit": 1}, r"stage1\.flags\.save_total_limit: 1 found, at least 2"),
        ({"freeze_llm": False}, r"stage1\.flags: stage 1 trains the aligner alone"),
        ({"num_train_epochs": 1}, r"stage1\.flags: give exactly one of max_steps and num_train_epochs"),
        ({"max_steps": None}, r"stage1\.flags: give exactly one of max_steps and num_train_epochs"),
        ({"torch_dtype": "float32", "bf16": True}, r"stage1\.flags\.torch_dtype: float32 contradicts bf16/fp16: true"),
    ],
)
def test_flags_that_are_not_to_choose_or_contradict_each_other_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_settings("stage1", stage_settings(flags=flags))


def test_a_harmless_value_of_a_refused_flag_is_let_through() -> None:
    check_settings("stage1", stage_settings(flags={"packing": False, "sequence_parallel_size": 1, "streaming": False}))
    check_settings(
        "stage1", stage_settings(flags={"safe_serialization": True, "lisa_activated_layers": 0, "vit_lr": 0})
    )
    check_settings("stage1", stage_settings(flags={"group_by_length": True, "train_dataloader_shuffle": True}))


def test_variables_that_are_not_to_choose_are_refused() -> None:
    with pytest.raises(UserError, match=r"stage1\.environment\.NPROC_PER_NODE: set by vlgraft itself"):
        check_settings("stage1", stage_settings(environment={"NPROC_PER_NODE": 8}))


def test_everything_that_is_wrong_is_found_at_once() -> None:
    settings = stage_settings(environment={"RANK": 0}, flags={"seed": 1, "max_steps": None, "freeze_aligner": True})
    keys = [finding.partition(": ")[0] for finding in findings("stage2", settings)]
    assert keys == ["stage2.environment.RANK", "stage2.flags.seed", "stage2.flags", "stage2.flags"]


@pytest.mark.parametrize(
    ("num_nodes", "num_processes", "deepspeed", "uses_torchrun"),
    [(1, 1, None, False), (1, 1, "zero2", True), (1, 2, None, True), (2, 1, None, True)],
)
def test_one_process_alone_needs_no_torchrun(
    num_nodes: int, num_processes: int, deepspeed: str | None, uses_torchrun: bool
) -> None:
    settings = stage_settings(num_nodes=num_nodes, num_processes_per_node=num_processes, deepspeed=deepspeed)
    assert settings.num_processes == num_nodes * num_processes
    assert settings.uses_torchrun is uses_torchrun


def test_the_dtype_is_the_flag_or_else_the_checkpoints_own() -> None:
    assert torch_dtype("stage1", stage_settings(), {"dtype": "bfloat16"}) == "bfloat16"
    assert torch_dtype("stage1", stage_settings(), {"torch_dtype": "float16"}) == "float16"
    assert torch_dtype("stage1", stage_settings(), {"text_config": {"dtype": "float32"}}) == "float32"
    assert torch_dtype("stage1", stage_settings(flags={"torch_dtype": "float32"}), {"dtype": "bfloat16"}) == "float32"
    with pytest.raises(UserError, match=r"stage1\.flags\.torch_dtype: None found, one of float32, bfloat16, float16"):
        torch_dtype("stage1", stage_settings(), {})
