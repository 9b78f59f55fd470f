"""Reads a configuration file and validates it, for programs that are started by hand."""

from pathlib import Path
from typing import Any

import yaml

from scripts.common.errors import UserError
from scripts.common.root import ROOT
from scripts.workflow.configuration import validate


def read_configuration(path: Path) -> dict[str, Any]:
    """A valid configuration: YAML, or the config.json beside a run's results.

    Raises UserError when it is absent, not YAML or invalid.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected a configuration, for example config.yaml") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({error}); correct it, or name another configuration") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: no configuration found; expected keys and values, as in config.yaml")
    validate(config, ROOT / "config")
    return config
