"""What identifies a training: another signature begins anew, the same one goes on."""

from pathlib import Path
from typing import Any

import pytest

from helpers.small_checkpoint import write_small_checkpoint
from helpers.stage import stage_settings
from scripts.common.errors import UserError
from scripts.train.run import check_dtype, signature_of, signed_text
from scripts.train.settings import StageSettings

INPUTS: dict[str, Any] = {"seed": 0, "model_sha256": "m", "dataset_sha256": "d", "versions": {"torch": "2"}}


def test_the_signature_of_given_settings_never_changes() -> None:
    """Or every training that was begun with an earlier version would begin anew. This text may change for no reason."""
    settings = StageSettings(
        datasets=["x"],
        deepspeed="zero2",
        environment={"MAX_PIXELS": 1003520, "OMP_NUM_THREADS": "4"},
        flags={
            "learning_rate": 5e-06, "freeze_vit": True, "save_steps": 50, "target": ["a", "b"], "logging_steps": 1,
            "max_steps": None,
        },
        num_nodes=2,
        num_processes_per_node=8,
    )  # fmt: skip
    given = (settings, 7, "mmmm", "dddd", {"torch": "2.13", "ms-swift": "4.6.0"})
    assert signed_text(*given) == (
        '{"dataset": "dddd", "deepspeed": "zero2", "environment": {"MAX_PIXELS": 1003520, "OMP_NUM_THREADS": "4"}, '
        '"flags": {"freeze_vit": true, "learning_rate": 5e-06, "max_steps": null, "target": ["a", "b"]}, '
        '"model": "mmmm", "num_nodes": 2, "num_processes_per_node": 8, "seed": 7, '
        '"versions": {"ms-swift": "4.6.0", "torch": "2.13"}}'
    )
    assert signature_of(*given) == "3e0dfa7602ec1b5d"


@pytest.mark.parametrize(
    "other",
    [
        {"num_processes_per_node": 2},
        {"deepspeed": "zero2"},
        {"environment": {"MAX_PIXELS": 2}},
        {"flags": {"learning_rate": 0.2}},
        {"flags": {"max_steps": 3}},
    ],
)
def test_settings_that_change_the_result_make_another_training(other: dict[str, Any]) -> None:
    assert signature_of(stage_settings(**other), **INPUTS) != signature_of(stage_settings(), **INPUTS)


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"model_sha256": "n"}, {"dataset_sha256": "e"}, {"versions": {"torch": "3"}}]
)
def test_other_inputs_make_another_training(other: dict[str, Any]) -> None:
    settings = stage_settings()
    assert signature_of(settings, **(INPUTS | other)) != signature_of(settings, **INPUTS)


def test_how_often_it_saves_and_logs_is_the_same_training() -> None:
    others = [
        stage_settings(flags={"save_steps": 9, "logging_steps": 7, "save_total_limit": 3}),
        stage_settings(datasets=["another name for the same rows"]),
    ]
    for other in others:
        assert signature_of(other, **INPUTS) == signature_of(stage_settings(), **INPUTS)


@pytest.mark.parametrize(
    "name",
    [
        "NCCL_DEBUG", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "TORCH_NCCL_TRACE_BUFFER_SIZE", "PYTORCH_CUDA_ALLOC_CONF",
        "PYTORCH_ALLOC_CONF", "TORCH_DISTRIBUTED_DEBUG", "WANDB_PROJECT", "HF_DATASETS_CACHE", "TRITON_CACHE_DIR", "TMPDIR",
    ],
)  # fmt: skip
def test_variables_of_logs_caches_allocators_and_the_network_are_the_same_training(name: str) -> None:
    other = stage_settings(environment={"MAX_PIXELS": 1003520, name: "x"})
    assert signature_of(other, **INPUTS) == signature_of(stage_settings(), **INPUTS)


@pytest.mark.parametrize(
    "name",
    ["NCCL_ALGO", "NCCL_PROTO", "NCCL_MIN_NCHANNELS", "OMP_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32"],
)
def test_variables_that_may_change_how_numbers_are_added_make_another_training(name: str) -> None:
    other = stage_settings(environment={"MAX_PIXELS": 1003520, name: "x"})
    assert signature_of(other, **INPUTS) != signature_of(stage_settings(), **INPUTS)


def test_shards_and_caches_of_rows_are_the_same_training() -> None:
    other = stage_settings(flags={"max_shard_size": "2GB", "load_from_cache_file": True})
    assert signature_of(other, **INPUTS) == signature_of(stage_settings(), **INPUTS)


def test_only_the_checkpoints_own_dtype_can_be_trained(tmp_path: Path) -> None:
    model_dir = write_small_checkpoint(tmp_path / "model")
    check_dtype("stage1", stage_settings(), {"dtype": "float32"}, model_dir)
    with pytest.raises(UserError, match=r"stage1\.flags\.torch_dtype: bfloat16 found, but .* is F32"):
        check_dtype("stage1", stage_settings(flags={"torch_dtype": "bfloat16"}), {"dtype": "float32"}, model_dir)
