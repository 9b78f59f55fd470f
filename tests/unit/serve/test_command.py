"""The command and the environment that serve a checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.evaluation_inputs import serve_settings
from scripts.common.errors import UserError
from scripts.common.settings import settings_from
from scripts.serve import command as serve_command
from scripts.serve.command import Serving, deploy_command, replica_environments, server_environment
from scripts.serve.ready_server import SEEN_PICTURES_PLUGIN
from scripts.serve.settings import ServeSettings

QWEN_IDS = {"image_token_id": 151655, "video_token_id": 151656}


def served_flags(tmp_path: Path, config: dict[str, Any], settings: ServeSettings | None = None) -> dict[str, str]:
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = deploy_command(Serving(Path("/env/bin/python"), tmp_path, settings or serve_settings()), 4321)
    assert command[:3] == ["/env/bin/python", "-m", "swift.cli.deploy"]
    return {name.removeprefix("--"): value for name, value in zip(command[3::2], command[4::2], strict=True)}


def test_the_published_deploy_command_is_given_flag_by_flag(tmp_path: Path, root: Path) -> None:
    published = yaml.safe_load((root / "tests/data/published_recipe.yaml").read_text())["deploy"]
    section = yaml.safe_load((root / "config/simple_vl_8b.yaml").read_text())["evaluate"]["serve"]
    settings = settings_from(ServeSettings, section, "evaluate.serve")
    flags = served_flags(tmp_path, {"model_type": "qwen2_5_vl", **QWEN_IDS}, settings)
    for name, value in published["flags"].items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        assert flags[published["renamed"].get(name, name)] == text
    environment = server_environment({}, settings)
    assert published["environment"].items() <= {k: int(v) for k, v in environment.items() if v.isdigit()}.items()


def test_a_server_for_people_has_the_models_plugin_and_its_own(tmp_path: Path, root: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl_qwen3"}))
    serving = Serving(Path("/env/bin/python"), tmp_path, serve_settings(), plugins=[SEEN_PICTURES_PLUGIN])
    command = deploy_command(serving, 4321)
    place = command.index("--external_plugins")
    own = root / "model/qwen2_5_vl_qwen3/swift_plugin.py"
    assert command[place + 1 : place + 3] == [str(own), str(SEEN_PICTURES_PLUGIN)]
    assert SEEN_PICTURES_PLUGIN.exists()


def test_a_server_listens_on_this_machine_alone(tmp_path: Path) -> None:
    flags = served_flags(tmp_path, {"model_type": "qwen2_5_vl", **QWEN_IDS})
    assert (flags["host"], flags["port"], flags["infer_backend"]) == ("127.0.0.1", "4321", "transformers")


def test_a_stock_checkpoint_is_served_by_swifts_own_template(tmp_path: Path) -> None:
    flags = served_flags(tmp_path, {"model_type": "qwen2_5_vl", **QWEN_IDS})
    assert (flags["model_type"], flags["template"]) == ("qwen2_5_vl", "qwen2_5_vl")
    assert "external_plugins" not in flags


@pytest.mark.parametrize(
    "config",
    [{"model_type": "qwen2_5_vl_qwen3", **QWEN_IDS}, {"model_type": "qwen2_5_vl", "image_token_id": 1036}],
    ids=["another architecture", "another vocabulary"],
)
def test_our_plugin_serves_what_swift_does_not_know(tmp_path: Path, root: Path, config: dict[str, Any]) -> None:
    flags = served_flags(tmp_path, config)
    assert flags["model_type"] == config["model_type"]
    assert flags["external_plugins"] == str(root / "model/qwen2_5_vl_qwen3/swift_plugin.py")
    assert Path(flags["external_plugins"]).exists()


def test_no_hub_is_asked_and_the_configuration_has_the_last_word(root: Path) -> None:
    settings = serve_settings(environment={"MAX_PIXELS": 3136, "VLLM_NO_USAGE_STATS": 0})
    environment = server_environment({"HOME": "/h"}, settings)
    assert (environment["HF_HUB_OFFLINE"], environment["USE_HF"]) == ("1", "1")
    assert (environment["VLLM_HOST_IP"], environment["VLLM_USE_FLASHINFER_SAMPLER"]) == ("127.0.0.1", "0")
    assert (environment["MAX_PIXELS"], environment["VLLM_NO_USAGE_STATS"]) == ("3136", "0")
    assert (environment["HOME"], environment["PYTHONPATH"]) == ("/h", str(root / "model"))


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
    monkeypatch.setattr(serve_command, "visible_gpus", lambda inherited: [])
    assert replica_environments({"HOME": "/h"}, 3) == [{"HOME": "/h"}] * 3
    monkeypatch.undo()
    hidden = {"CUDA_VISIBLE_DEVICES": ""}  # GPUs are there but not to be used
    assert replica_environments(hidden, 2) == [hidden] * 2


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/config\.json: not found; expected a checkpoint"):
        Serving(Path("python"), tmp_path / "nowhere", serve_settings()).require_servable()


def test_an_environment_that_is_not_built_is_named_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    python = tmp_path / ".venvs/train/bin/python"
    with pytest.raises(UserError, match=r"bin/python: not found; .* snakemake --cores all .*\.venvs/train\.ok"):
        Serving(python, tmp_path, serve_settings()).require_servable()
