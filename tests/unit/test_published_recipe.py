"""`config/simple_vl_8b.yaml` gives the published commands, flag by flag, under the names of the locked ms-swift."""

from pathlib import Path
from typing import Any

import pytest
import yaml


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
