"""How a checkpoint is served when a person asks for it: as the configuration's section `evaluate.serve` says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.common.errors import UserError
from scripts.common.root import ROOT
from scripts.environments.paths import environment_dir, serving_role
from scripts.workflow.configuration import validate


@dataclass(frozen=True)
class ServingSettings:
    """The section, and the interpreter of the environment that it needs."""

    python: Path
    serve: dict[str, Any]


def read_settings(config_path: Path, checkpoint_dir: Path) -> ServingSettings:
    """Reads a configuration (YAML, or the config.json beside a run's results).

    Raises UserError when it is absent or invalid, when its environment is not built, or when there is no checkpoint.
    """
    if not (checkpoint_dir / "config.json").exists():
        raise UserError(
            f"{checkpoint_dir}/config.json: not found; expected a checkpoint in the hub's format, for example "
            "results/stage2/checkpoint; check the path"
        )
    try:
        config = yaml.safe_load(config_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{config_path}: not found; expected a configuration, for example config.yaml") from None
    except yaml.YAMLError as error:
        raise UserError(f"{config_path}: not YAML ({error}); mend it, or name another configuration") from None
    validate(config, ROOT / "config")
    serve = config["evaluate"]["serve"]
    role = serving_role(serve["backend"])
    python = ROOT / environment_dir(config["environments"], role) / "bin/python"
    if not python.exists():
        raise UserError(
            f"{python}: not found; expected the environment that serves by {serve['backend']}; build it: "
            f"snakemake --cores all .venvs/{role}.ok"
        )
    return ServingSettings(python, serve)
