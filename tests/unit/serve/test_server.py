"""The command that serves a checkpoint, and what is said when it fails."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from helpers.processes import wait_for
from scripts.common.errors import UserError
from scripts.evaluate.run_vlmevalkit import eval_config
from scripts.serve import server as model_server
from scripts.serve.server import (
    ModelServer,
    deploy_command,
    has_ended,
    last_error,
    replica_environments,
    require_free_port,
    server_environment,
)

QWEN_IDS = {"image_token_id": 151655, "video_token_id": 151656}


def flags_of(command: list[str]) -> dict[str, str]:
    pairs = command[3:]
    return {name.removeprefix("--"): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}


def served_flags(tmp_path: Path, root: Path, config: dict[str, Any], **serve: Any) -> dict[str, str]:
    (tmp_path / "config.json").write_text(json.dumps(config))
    serve = {"backend": "transformers", "environment": {}, "flags": {}, **serve}
    command = deploy_command(Path("/env/bin/python"), root, tmp_path, serve, 4321)
    assert command[:3] == ["/env/bin/python", "-m", "swift.cli.deploy"]
    return flags_of(command)


def test_the_published_deploy_command_is_given_flag_by_flag(tmp_path: Path, root: Path) -> None:
    published = yaml.safe_load((root / "tests/data/published_recipe.yaml").read_text())["deploy"]
    serve = yaml.safe_load((root / "config/simple_vl_8b.yaml").read_text())["evaluate"]["serve"]
    flags = served_flags(tmp_path, root, {"model_type": "qwen2_5_vl", **QWEN_IDS}, **serve)
    for name, value in published["flags"].items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        assert flags[published["renamed"].get(name, name)] == text
    environment = server_environment({}, root, serve)
    assert published["environment"].items() <= {k: int(v) for k, v in environment.items() if v.isdigit()}.items()


def test_the_published_evaluation_is_given_key_by_key(root: Path) -> None:
    published = yaml.safe_load((root / "tests/data/published_recipe.yaml").read_text())["evaluation"]
    settings = yaml.safe_load((root / "config/simple_vl_8b.yaml").read_text())["evaluate"]["vlmevalkit"]
    (benchmark,) = published["data"]
    config = eval_config(benchmark, "http://127.0.0.1:1/v1", "Qwen3-VL", settings, seed=0)
    assert published["model"].items() <= config["model"][0].items()
    rest = {key: published[key] for key in ("data", "mode", "reuse", "nproc", "judge")}
    assert rest.items() <= config.items()
    assert config["model"][0]["api_base"] == "http://127.0.0.1:1/v1/chat/completions"


def test_a_server_listens_on_this_machine_alone(tmp_path: Path, root: Path) -> None:
    flags = served_flags(tmp_path, root, {"model_type": "qwen2_5_vl", **QWEN_IDS})
    assert (flags["host"], flags["port"], flags["infer_backend"]) == ("127.0.0.1", "4321", "transformers")


def test_a_stock_checkpoint_is_served_by_swifts_own_template(tmp_path: Path, root: Path) -> None:
    flags = served_flags(tmp_path, root, {"model_type": "qwen2_5_vl", **QWEN_IDS})
    assert (flags["model_type"], flags["template"]) == ("qwen2_5_vl", "qwen2_5_vl")
    assert "external_plugins" not in flags


@pytest.mark.parametrize(
    "config",
    [{"model_type": "qwen2_5_vl_qwen3", **QWEN_IDS}, {"model_type": "qwen2_5_vl", "image_token_id": 1036}],
    ids=["another architecture", "another vocabulary"],
)
def test_our_plugin_serves_what_swift_does_not_know(tmp_path: Path, root: Path, config: dict[str, Any]) -> None:
    flags = served_flags(tmp_path, root, config)
    assert flags["model_type"] == config["model_type"]
    assert flags["external_plugins"] == str(root / "model/qwen2_5_vl_qwen3/swift_plugin.py")
    assert Path(flags["external_plugins"]).exists()


def test_no_hub_is_asked_and_the_configuration_has_the_last_word(root: Path) -> None:
    serve = {"environment": {"MAX_PIXELS": 3136, "VLLM_NO_USAGE_STATS": 0}}
    environment = server_environment({"HOME": "/h"}, root, serve)
    assert (environment["HF_HUB_OFFLINE"], environment["USE_HF"]) == ("1", "1")
    assert (environment["VLLM_HOST_IP"], environment["VLLM_USE_FLASHINFER_SAMPLER"]) == ("127.0.0.1", "0")
    assert (environment["MAX_PIXELS"], environment["VLLM_NO_USAGE_STATS"]) == ("3136", "0")
    assert (environment["HOME"], environment["PYTHONPATH"]) == ("/h", str(root / "model"))


def test_a_busy_port_is_refused_by_its_number() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(UserError, match=f"flags.port: {port} cannot be used"):
            require_free_port(port)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            "loading\nTraceback (most recent call last):\n  x\nRuntimeError: out of memory\n",
            "RuntimeError: out of memory",
        ),
        ("torch.OutOfMemoryError: CUDA\nshutting down\n", "torch.OutOfMemoryError: CUDA"),
        ("a\nb\nc\nd\n", "b | c | d"),
        ("", "nothing was written"),
        (
            "(EngineCore pid=7) ERROR 11-26 02:09:31 [core.py:1503] ValueError: head_dim\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "ValueError: head_dim",
        ),
        (
            "INFO 1\nvllm.v1.engine.exceptions.EngineDeadError: x. See stack trace (above) for the root cause.\n",
            "vllm.v1.engine.exceptions.EngineDeadError: x. See stack trace (above) for the root cause.",
        ),
    ],
)
def test_the_last_error_of_a_log_is_the_exception_in_it(tmp_path: Path, log: str, expected: str) -> None:
    (tmp_path / "server.log").write_text(log)
    assert last_error(tmp_path / "server.log") == expected


def test_a_port_that_another_process_took_meanwhile_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "server.log").touch()
    with (
        socket.socket() as other,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]) as loading,
    ):
        other.bind(("127.0.0.1", 0))
        server = ModelServer(loading, other.getsockname()[1], "model", tmp_path / "server.log", 60)
        assert not server.is_ready()
        other.listen()
        with pytest.raises(UserError, match="was taken by another process"):
            server.is_ready()
        loading.kill()


def test_a_server_without_the_process_that_computed_is_not_alive(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("RuntimeError: out of memory\n")
    code = (
        "import subprocess, time; subprocess.Popen(['sleep', '3600']); print('started', flush=True); time.sleep(3600)"
    )
    with psutil.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as leader:
        leader.stdout.readline()
        (engine,) = leader.children()
        server = ModelServer(leader, 1, "model", tmp_path / "server.log", 60, engines=[engine])
        server.require_alive()
        engine.kill()
        wait_for(lambda: has_ended(engine))
        with pytest.raises(UserError, match=f"its child process {engine.pid} is gone.*RuntimeError: out of memory"):
            server.require_alive()
        leader.kill()


def test_replicas_share_the_gpus_evenly_and_in_their_order() -> None:
    inherited = {"HOME": "/h", "CUDA_VISIBLE_DEVICES": "4,5,GPU-c,7"}
    environments = replica_environments(inherited, 2)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments] == ["4,5", "GPU-c,7"]
    assert all(each["HOME"] == "/h" for each in environments)


@pytest.mark.parametrize("num_replicas", [3, 8])
def test_gpus_that_cannot_be_shared_evenly_are_refused_by_the_key(num_replicas: int) -> None:
    expected = rf"evaluate.serve.num_replicas: {num_replicas} replicas cannot share 4 GPUs \(0,1,2,3\) evenly"
    with pytest.raises(UserError, match=expected):
        replica_environments({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, num_replicas)


def test_one_replica_keeps_its_environment_as_it_is() -> None:
    inherited = {"CUDA_VISIBLE_DEVICES": "0,1,2"}
    assert replica_environments(inherited, 1) == [inherited]


def test_replicas_on_a_cpu_keep_their_environment_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "visible_gpus", lambda inherited: [])
    assert replica_environments({"HOME": "/h"}, 3) == [{"HOME": "/h"}] * 3
    monkeypatch.undo()
    hidden = {"CUDA_VISIBLE_DEVICES": ""}  # GPUs are there but not to be used
    assert replica_environments(hidden, 2) == [hidden] * 2
