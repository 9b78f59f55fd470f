"""The command of a stage is made from settings and checkpoint alone; what the launcher owns cannot be chosen twice."""

from pathlib import Path
from typing import Any

import pytest

from helpers.stage import make_run, stage_settings
from scripts.common.errors import UserError
from scripts.train.command import MODEL_PLUGIN, WATCH_PLUGIN, Launch, SwiftCommand, build_sft_command
from scripts.train.settings import StageSettings

SFT_SCRIPT = Path("/swift/cli/sft.py")
RUN_DIR = Path("/scratch")
QWEN_IDS = {"image_token_id": 151655, "video_token_id": 151656}
STOCK = {"model_type": "qwen2_5_vl", "dtype": "bfloat16", **QWEN_IDS}
GRAFT = {"model_type": "qwen2_5_vl_qwen3", "dtype": "bfloat16", **QWEN_IDS}
SMALL_IDS = {"image_token_id": 1036, "video_token_id": 1037}


def settings(num_nodes: int = 1, num_processes: int = 1, deepspeed: str | None = None, **flags: Any) -> StageSettings:
    flags = {"learning_rate": 5e-6, **flags}
    return stage_settings(num_nodes=num_nodes, num_processes_per_node=num_processes, deepspeed=deepspeed, flags=flags)


def command(
    chosen: StageSettings, config: dict[str, Any] = GRAFT, *, device: str = "cuda", **launch: Any
) -> SwiftCommand:
    run = make_run(RUN_DIR, chosen, model_config=config)
    return build_sft_command(run, Launch(SFT_SCRIPT, device, **launch))


def flags_in(argv: list[str]) -> dict[str, list[str]]:
    """The flags after ms-swift's own script, each with its values."""
    flags: dict[str, list[str]] = {}
    for word in argv[argv.index(str(SFT_SCRIPT)) + 1 :]:
        if word.startswith("--"):
            assert word not in flags, f"{word} is given twice"
            flags[word] = []
        else:
            flags[list(flags)[-1]].append(word)
    return flags


def test_one_process_is_started_directly_and_never_by_the_swift_wrapper() -> None:
    assert command(settings()).argv[:2] == ["/env/python", "/swift/cli/sft.py"]


def test_one_process_gets_one_gpu_unless_the_user_names_some() -> None:
    assert command(settings(), first_gpu="3").environment["CUDA_VISIBLE_DEVICES"] == "3"
    chosen = stage_settings(environment={"CUDA_VISIBLE_DEVICES": "2,4"})
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
        rendezvous_id="this-start",
        node_launcher=["srun", "--nodes=2"],
    )
    assert result.argv[:3] == ["srun", "--nodes=2", "env"]
    assert {f"{name}={value}" for name, value in result.environment.items()} < set(result.argv)
    assert result.argv[result.argv.index("--nnodes") + 1] == "2"
    assert "--rdzv_endpoint" not in result.argv
    assert result.argv[result.argv.index("--rdzv_id") + 1] == "this-start"
    assert "--local_addr" not in result.argv


def test_what_protects_the_data_and_the_model_is_always_set() -> None:
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
        (GRAFT, "qwen2_5_vl_qwen3", "qwen2_5_vl", [str(MODEL_PLUGIN), str(WATCH_PLUGIN)]),
        (STOCK, "qwen2_5_vl", "qwen2_5_vl", [str(WATCH_PLUGIN)]),
        (STOCK | SMALL_IDS, "qwen2_5_vl", "qwen2_5_vl_qwen3", [str(MODEL_PLUGIN), str(WATCH_PLUGIN)]),
        (GRAFT | SMALL_IDS, "qwen2_5_vl_qwen3", "qwen2_5_vl_qwen3", [str(MODEL_PLUGIN), str(WATCH_PLUGIN)]),
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
    assert result.environment["TORCH_EXTENSIONS_DIR"].startswith(str(RUN_DIR / "cache"))


def test_flash_attention_on_a_cpu_is_refused() -> None:
    with pytest.raises(UserError, match=r"stage1\.flags\.attn_impl: flash_attn found, but there is no GPU"):
        command(settings(attn_impl="flash_attn"), device="cpu")


def test_the_trainer_stays_offline_and_outside_the_home_directory() -> None:
    environment = command(settings()).environment
    assert environment["HF_HUB_OFFLINE"] == environment["USE_HF"] == "1"
    assert environment["MODELSCOPE_CACHE"].startswith(str(RUN_DIR / "cache"))
    assert environment["MAX_PIXELS"] == "1003520"


def test_values_are_written_as_ms_swift_reads_them() -> None:
    flags = flags_in(command(settings(target=["a", "b"], extra={"k": 1}, flag=True, absent=None)).argv)
    assert flags["--target"] == ["a", "b"]
    assert flags["--extra"] == ['{"k": 1}']
    assert flags["--flag"] == ["true"]
    assert "--absent" not in flags
    assert flags["--learning_rate"] == ["5e-06"]


def test_an_architecture_that_ms_swift_would_take_for_another_is_refused() -> None:
    with pytest.raises(UserError, match="model_type qwen3_vl found, one of qwen2_5_vl, qwen2_5_vl_qwen3 expected"):
        command(settings(), GRAFT | {"model_type": "qwen3_vl"})
