"""The command of a stage is made from settings and checkpoint alone; what the launcher owns cannot be chosen twice."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.train.command import SwiftCommand, TrainingPaths, build_sft_command, check_settings

PATHS = TrainingPaths(
    python=Path("/env/python"),
    sft_script=Path("/swift/cli/sft.py"),
    model_plugin=Path("/repo/model/plugin.py"),
    watch_plugin=Path("/repo/watch.py"),
    model_dir=Path("/models/graft"),
    dataset=Path("/data/stage1.jsonl"),
    output_dir=Path("/scratch/trainer"),
    cache_dir=Path("/scratch/cache"),
    rank_logs_dir=Path("/scratch/rank_logs"),
    watch_settings=Path("/scratch/watch.json"),
)
QWEN_IDS = {"image_token_id": 151655, "video_token_id": 151656}
STOCK = {"model_type": "qwen2_5_vl", "dtype": "bfloat16", **QWEN_IDS}
GRAFT = {"model_type": "qwen2_5_vl_qwen3", "dtype": "bfloat16", **QWEN_IDS}
SMALL_IDS = {"image_token_id": 1036, "video_token_id": 1037}


def settings(num_nodes: int = 1, num_processes: int = 1, deepspeed: str | None = None, **flags: Any) -> dict[str, Any]:
    return {
        "num_nodes": num_nodes,
        "num_processes_per_node": num_processes,
        "deepspeed": deepspeed,
        "environment": {"MAX_PIXELS": 1003520},
        "flags": {"freeze_vit": True, "learning_rate": 5e-6, **flags},
    }


def command(stage_settings: dict[str, Any], config: dict[str, Any] = GRAFT, **options: Any) -> SwiftCommand:
    return build_sft_command("stage1", stage_settings, config, PATHS, **{"seed": 7, "device": "cuda", **options})


def flags_in(argv: list[str]) -> dict[str, list[str]]:
    """The flags after ms-swift's own script, each with its values."""
    flags: dict[str, list[str]] = {}
    for word in argv[argv.index(str(PATHS.sft_script)) + 1 :]:
        if word.startswith("--"):
            assert word not in flags, f"{word} is said twice"
            flags[word] = []
        else:
            flags[list(flags)[-1]].append(word)
    return flags


def test_one_process_is_started_directly_and_never_by_the_swift_wrapper() -> None:
    assert command(settings()).argv[:2] == ["/env/python", "/swift/cli/sft.py"]


def test_one_process_gets_one_gpu_unless_the_user_names_some() -> None:
    assert command(settings(), first_gpu="3").environment["CUDA_VISIBLE_DEVICES"] == "3"
    chosen = settings() | {"environment": {"CUDA_VISIBLE_DEVICES": "2,4"}}
    assert command(chosen).environment["CUDA_VISIBLE_DEVICES"] == "2,4"
    assert "CUDA_VISIBLE_DEVICES" not in command(settings(num_processes=8)).environment


@pytest.mark.parametrize(("num_processes", "deepspeed"), [(8, None), (1, "zero2"), (8, "zero2")])
def test_several_processes_or_deepspeed_go_through_torchrun(num_processes: int, deepspeed: str | None) -> None:
    argv = command(settings(num_processes=num_processes, deepspeed=deepspeed)).argv
    assert argv[1:3] == ["-m", "torch.distributed.run"]
    assert argv[argv.index("--nproc_per_node") + 1] == str(num_processes)
    assert argv[argv.index("--rdzv_endpoint") + 1] == "127.0.0.1:0"  # the kernel chooses the port
    assert flags_in(argv).get("--deepspeed") == ([deepspeed] if deepspeed else None)


def test_torchrun_does_not_end_the_ranks_on_sigterm() -> None:
    argv = command(settings(num_processes=2)).argv
    assert "SIGTERM" not in argv[argv.index("--signals_to_handle") + 1]


def test_several_nodes_meet_at_the_given_place() -> None:
    result = command(
        settings(num_nodes=2, num_processes=8),
        rendezvous="node1:29500",
        rendezvous_id="this-start",
        node_launcher=["srun", "--nodes=2"],
    )
    assert result.argv[:2] == ["srun", "--nodes=2"]
    assert result.argv[result.argv.index("--nnodes") + 1] == "2"
    assert result.argv[result.argv.index("--rdzv_endpoint") + 1] == "node1:29500"
    assert result.argv[result.argv.index("--rdzv_id") + 1] == "this-start"
    assert "--local_addr" not in result.argv


def test_what_protects_the_data_and_the_model_is_always_said() -> None:
    flags = flags_in(command(settings()).argv)
    assert flags["--strict"] == ["true"]
    assert flags["--split_dataset_ratio"] == ["0"]
    assert flags["--check_model"] == flags["--add_version"] == flags["--logging_nan_inf_filter"] == ["false"]
    assert flags["--seed"] == flags["--data_seed"] == ["7"]
    assert flags["--tuner_type"] == ["full"]
    assert "--ignore_args_error" not in flags
    assert "--resume_from_checkpoint" not in flags


def test_a_resume_names_the_checkpoint() -> None:
    flags = flags_in(command(settings(), resume_from=Path("/scratch/trainer/checkpoint-8")).argv)
    assert flags["--resume_from_checkpoint"] == ["/scratch/trainer/checkpoint-8"]
    assert flags["--model"] == ["/models/graft"]


@pytest.mark.parametrize(
    ("config", "model_type", "template", "plugins"),
    [
        (GRAFT, "qwen2_5_vl_qwen3", "qwen2_5_vl", ["/repo/model/plugin.py", "/repo/watch.py"]),
        (STOCK, "qwen2_5_vl", "qwen2_5_vl", ["/repo/watch.py"]),
        (STOCK | SMALL_IDS, "qwen2_5_vl", "qwen2_5_vl_qwen3", ["/repo/model/plugin.py", "/repo/watch.py"]),
        (GRAFT | SMALL_IDS, "qwen2_5_vl_qwen3", "qwen2_5_vl_qwen3", ["/repo/model/plugin.py", "/repo/watch.py"]),
    ],
)
def test_the_template_fits_the_checkpoints_own_placeholder_ids(
    config: dict[str, Any], model_type: str, template: str, plugins: list[str]
) -> None:
    flags = flags_in(command(settings(), config).argv)
    assert flags["--model_type"] == [model_type]
    assert flags["--template"] == [template]
    assert flags["--external_plugins"] == plugins


def test_float32_switches_mixed_precision_off() -> None:
    flags = flags_in(command(settings(), GRAFT | {"dtype": "float32"}).argv)
    assert flags["--torch_dtype"] == ["float32"]
    assert flags["--fp16"] == flags["--bf16"] == ["false"]
    assert "--fp16" not in flags_in(command(settings()).argv)


def test_a_cpu_uses_gloo_and_tells_deepspeed() -> None:
    result = command(settings(num_processes=2, deepspeed="zero2"), device="cpu")
    flags = flags_in(result.argv)
    assert flags["--use_cpu"] == ["true"]
    assert flags["--ddp_backend"] == ["gloo"]
    assert result.environment["DS_ACCELERATOR"] == "cpu"
    assert result.environment["TORCH_EXTENSIONS_DIR"].startswith(str(PATHS.cache_dir))


def test_flash_attention_on_a_cpu_is_refused() -> None:
    with pytest.raises(UserError, match=r"stage1\.flags\.attn_impl: flash_attn found, but there is no GPU"):
        command(settings(attn_impl="flash_attn"), device="cpu")


def test_the_trainer_stays_offline_and_outside_the_home_directory() -> None:
    environment = command(settings()).environment
    assert environment["HF_HUB_OFFLINE"] == environment["USE_HF"] == "1"
    assert environment["MODELSCOPE_CACHE"].startswith(str(PATHS.cache_dir))
    assert environment["MAX_PIXELS"] == "1003520"


def test_values_are_written_as_ms_swift_reads_them() -> None:
    flags = flags_in(command(settings(target=["a", "b"], extra={"k": 1}, flag=True, absent=None)).argv)
    assert flags["--target"] == ["a", "b"]
    assert flags["--extra"] == ['{"k": 1}']
    assert flags["--flag"] == ["true"]
    assert "--absent" not in flags
    assert flags["--learning_rate"] == ["5e-06"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": "x"}, r"stage1\.flags\.model: set by the launcher"),
        ({"ignore_args_error": True}, r"stage1\.flags\.ignore_args_error: set by the launcher"),
        ({"seed": 1}, r"stage1\.flags\.seed: set by the launcher"),
        ({"packing": True}, r"stage1\.flags\.packing: True found; packed rows are not counted"),
        ({"streaming": True}, r"stage1\.flags\.streaming"),
        ({"save_only_model": True}, r"stage1\.flags\.save_only_model.*cannot be resumed"),
        ({"tuner_type": "lora"}, r"stage1\.flags\.tuner_type: lora found, full expected"),
        ({"save_strategy": "no"}, r"stage1\.flags\.save_strategy: no found, steps or epoch expected"),
        ({"save_total_limit": 1}, r"stage1\.flags\.save_total_limit: 1 found, at least 2"),
    ],
)
def test_flags_that_are_the_launchers_or_break_its_promises_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_settings("stage1", settings(**flags))


def test_a_harmless_value_of_a_refused_flag_is_let_through() -> None:
    check_settings("stage1", settings(packing=False, sequence_parallel_size=1, streaming=False))


def test_variables_of_the_launcher_are_refused() -> None:
    with pytest.raises(UserError, match=r"stage1\.environment\.NPROC_PER_NODE: set by the launcher"):
        check_settings("stage1", settings() | {"environment": {"NPROC_PER_NODE": 8}})


def test_an_architecture_that_ms_swift_would_take_for_another_is_refused() -> None:
    with pytest.raises(UserError, match="model_type qwen3_vl found, one of qwen2_5_vl, qwen2_5_vl_qwen3 expected"):
        command(settings(), GRAFT | {"model_type": "qwen3_vl"})
