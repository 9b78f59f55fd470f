"""Reads a configuration file and validates it, for programs that are started by hand."""

from pathlib import Path
from typing import Any

from scripts.common.root import ROOT
from scripts.workflow.config_files import read_files
from scripts.workflow.configuration import validate


def read_configuration(*paths: Path) -> dict[str, Any]:
    """A valid configuration: YAML, or the config.json beside a run's results; later files over earlier ones.

    Raises UserError when one is absent, or not YAML, or the whole is invalid.
    """
    config, faults = read_files(paths)
    validate(config, ROOT / "config", faults)
    return config
