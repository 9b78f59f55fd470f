"""Reads a configuration file and validates it, for programs that are started by hand."""

from pathlib import Path
from typing import Any

from scripts.common.root import ROOT
from scripts.workflow.config_files import read_files
from scripts.workflow.configuration import validate


def read_configuration(path: Path) -> dict[str, Any]:
    """A valid configuration: YAML, or the config.json beside a run's results.

    Raises UserError when it is absent, not YAML or invalid.
    """
    config, faults = read_files([path])
    validate(config, ROOT / "config", faults)
    return config
