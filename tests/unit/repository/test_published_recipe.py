"""`config/simple_vl_8b.yaml` gives the published commands, flag by flag, under the names of the locked ms-swift."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.stage import make_run
from scripts.train.command import Launch, SwiftCommand, build_sft_command
from scripts.train.settings import StageSettings


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def published(root: Path) -> Any:
    return load(root / "tests/data/published_recipe.yaml")


@pytest.fixture(scope="module")
def config(root: Path) -> Any:
    return load(root / "config/simple_vl_8b.yaml")


def renamed(section: dict[str, Any], stage: str = "") -> dict[str, Any]:
    """The published flags under their present names, with the value of one stage where the stages differ."""
    result = {}
    for flag, value in section["flags"].items():
        if isinstance(value, dict) and stage in value:
            value = value[stage]
        result[section["renamed"].get(flag, flag)] = value
    return result


def given_flags(argv: list[str]) -> dict[str, list[str]]:
    """`--name a b` → {name: [a, b]}; a name that stands twice keeps its last values, as argparse does."""
    flags: dict[str, list[str]] = {}
    for word in argv:
        if word.startswith("--"):
            name = word.removeprefix("--")
            flags[name] = []
        elif flags:
            flags[name].append(word)
    return flags


def same_value(given: list[str], published: Any) -> bool:
    """Whether the words of a command line have the published value."""
    if len(given) != 1:
        return False
    if isinstance(published, str):
        return given[0] == published
    return yaml.safe_load(given[0]) == published or float(given[0]) == published


def training_command(config: Any, root: Path, stage: str) -> SwiftCommand:
    stock_config = load(root / "config/models/Qwen2.5-VL-7B-Instruct/config.json")
    run = make_run(root / "work", StageSettings(**config[stage]), stage=stage, seed=42, model_config=stock_config)
    return build_sft_command(run, Launch(root / "sft.py", "cuda"))


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_each_published_training_flag_is_in_the_command(published: Any, config: Any, root: Path, stage: str) -> None:
    command = training_command(config, root, stage)
    flags = given_flags(command.argv)
    for name, value in renamed(published["sft"], stage).items():
        assert same_value(flags[name], value), f"--{name} {flags.get(name)}, published {value}"
    environment = published["sft"]["environment"]
    assert flags["nproc_per_node"] == [str(environment["NPROC_PER_NODE"])]
    assert command.environment["MAX_PIXELS"] == str(environment["MAX_PIXELS"])


def test_the_published_template_is_used_for_the_stock_architecture(config: Any, root: Path) -> None:
    command = training_command(config, root, "stage1")
    assert given_flags(command.argv)["template"] == ["qwen2_5_vl"]


def test_the_graft_is_the_published_one(config: Any) -> None:
    assert config["graft"]["architecture"] == "qwen2_5_vl"
    assert config["graft"]["aligner"] == "fresh"
    assert config["graft"]["max_shard_gb"] == 4
    assert config["donors"]["vl"]["id"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert config["donors"]["llm"]["id"] == "Qwen/Qwen3-8B"
