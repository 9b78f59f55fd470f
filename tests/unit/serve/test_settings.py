"""A checkpoint is served to people as it was to the evaluation."""

import json
from pathlib import Path

import pytest
import yaml

from scripts.common.errors import UserError
from scripts.environments.paths import environment_dir, serving_role
from scripts.serve.chat import DEPLOY_ONLY_FLAGS, infer_command
from scripts.serve.settings import read_settings


@pytest.fixture
def checkpoint_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl_qwen3"}))
    return directory


def test_the_settings_are_those_of_the_configuration(root: Path, checkpoint_dir: Path) -> None:
    settings = read_settings(root / "config/demo.yaml", checkpoint_dir)
    assert settings.serve == yaml.safe_load((root / "config/demo.yaml").read_text())["evaluate"]["serve"]
    assert settings.python == root / ".venvs/train/bin/python"


def test_a_saved_configuration_is_read_too(root: Path, checkpoint_dir: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((root / "config/demo.yaml").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_settings(tmp_path / "config.json", checkpoint_dir).serve == config["evaluate"]["serve"]


@pytest.mark.parametrize(
    ("config", "directory", "message"),
    [
        ("config/demo.yaml", "nowhere", "nowhere/config.json: not found; expected a checkpoint"),
        ("config/nothing.yaml", "checkpoint", "config/nothing.yaml: not found; expected a configuration"),
        ("study/config.yaml", "checkpoint", "configuration:"),
        ("LICENSE", "checkpoint", "LICENSE: not YAML"),
    ],
)
def test_what_cannot_be_served_is_refused(
    root: Path, checkpoint_dir: Path, config: str, directory: str, message: str
) -> None:
    with pytest.raises(UserError) as refusal:
        read_settings(root / config, checkpoint_dir.parent / directory)
    assert message in str(refusal.value)


def test_an_environment_that_is_not_built_is_named_with_the_command(
    root: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load((root / "config/demo.yaml").read_text())
    config["environments"]["kind"] = "apptainer"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(
        UserError, match=r"image/train/bin/python: not found; .* snakemake --cores all \.venvs/train\.ok"
    ):
        read_settings(tmp_path / "config.yaml", checkpoint_dir)


def test_each_backend_has_its_environment() -> None:
    assert [serving_role(backend) for backend in ("transformers", "vllm")] == ["train", "serve"]
    environments = {"kind": "venv", "train": "train_flash_attn"}
    assert environment_dir(environments, "train") == ".venvs/train_flash_attn"
    assert environment_dir(environments, "serve") == ".venvs/serve"
    assert environment_dir(environments | {"kind": "apptainer"}, "serve") == ".venvs/image/serve"


def test_questions_from_the_terminal_are_asked_with_the_evaluations_settings(root: Path, checkpoint_dir: Path) -> None:
    serve = read_settings(root / "config/demo.yaml", checkpoint_dir).serve
    command = infer_command(Path("python"), checkpoint_dir, serve)
    assert command[:3] == ["python", "-m", "swift.cli.infer"]
    flags = dict(zip(command[3::2], command[4::2], strict=True))
    assert flags["--infer_backend"] == "transformers" and flags["--model"] == str(checkpoint_dir)
    assert flags["--max_new_tokens"] == str(serve["flags"]["max_new_tokens"])
    assert not {f"--{name}" for name in DEPLOY_ONLY_FLAGS} & flags.keys()
