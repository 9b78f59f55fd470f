"""The command and the environment that serve a checkpoint with ms-swift. Pure: nothing is started here."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.input_files import read_section
from scripts.common.root import ROOT
from scripts.common.settings import json_settings
from scripts.data.swift_model import OWN_IDS_TEMPLATE, model_type, template
from scripts.serve.settings import ServeSettings
from scripts.train.gpus import visible_gpus
from scripts.train.swift_arguments import flag_arguments

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Serving:
    """A checkpoint, how it is served, and the interpreter that serves it. Paths are absolute."""

    python: Path
    model_dir: Path
    settings: ServeSettings
    plugins: Sequence[Path] = ()  # of ms-swift, beside that of the model

    def require_servable(self) -> None:
        """Raises UserError when there is no checkpoint, or when the environment that serves it is not built."""
        if not (self.model_dir / "config.json").exists():
            raise UserError(
                f"{self.model_dir}/config.json: not found; expected a checkpoint in the hub's format, for example "
                "results/stage2/checkpoint; check the path, or make the checkpoint"
            )
        if not self.python.exists():
            raise UserError(
                f"{self.python}: not found; expected the environment that serves; build it: "
                f"snakemake --cores all {self.python.parent.parent}.ok"
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the programs that serve a checkpoint to people."""
    parser.add_argument("--checkpoint-dir", required=True, type=Path)
    parser.add_argument(
        "--serve",
        required=True,
        type=json_settings(ServeSettings, "evaluate.serve"),
        metavar="JSON",
        help="evaluate.serve",
    )
    parser.add_argument("--serve-python", required=True, type=Path, help="interpreter of the server's environment")


def model_arguments(serving: Serving) -> dict[str, Any]:
    """How ms-swift is to read the checkpoint, by its config.json."""
    model_dir = serving.model_dir
    config = read_section(model_dir / "config.json")
    arguments: dict[str, Any] = {
        "model": str(model_dir),
        "model_type": model_type(config),
        "template": template(config),
    }
    own = [ROOT / "model" / "qwen2_5_vl_qwen3" / "swift_plugin.py"] if OWN_IDS_TEMPLATE in arguments.values() else []
    if plugins := [str(path) for path in (*own, *serving.plugins)]:
        arguments["external_plugins"] = plugins
    return arguments


def deploy_command(serving: Serving, port: int) -> list[str]:
    """The command that serves the checkpoint at a port.

    A Python program, never the `swift` wrapper, which leaves its child running when it is ended.
    """
    settings = serving.settings
    flags = {"served_model_name": settings.served_name, "verbose": False, "log_interval": -1, **settings.flags}
    flags |= {"infer_backend": settings.backend, "host": HOST, "port": port, **model_arguments(serving)}
    return [str(serving.python), "-m", "swift.cli.deploy", *flag_arguments(flags)]


def server_environment(inherited: Mapping[str, str], settings: ServeSettings) -> dict[str, str]:
    """The server's variables: no hub is asked, our model classes are found, and what the configuration sets.

    VLLM_HOST_IP keeps vLLM's workers on this machine; vLLM would take the address that leads to the internet. FlashInfer's
    sampler is off: vLLM 0.32.0 compiles it with nvcc when it first starts, for minutes, and uses it neither at temperature
    0 nor with seeds, so for no answer of an evaluation.
    """
    own = {"USE_HF": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": HOST}
    own |= {"VLLM_USE_FLASHINFER_SAMPLER": "0", "PYTHONPATH": str(ROOT / "model")}
    return {**inherited, **own, **{name: str(value) for name, value in settings.environment.items()}}


def replica_environments(inherited: Mapping[str, str], num_replicas: int) -> list[dict[str, str]]:
    """One environment for each replica: with several, each sees an equal share of the GPUs, in their order.

    Raises UserError when they cannot be shared evenly.
    """
    gpus = visible_gpus(inherited)
    if num_replicas == 1 or not gpus:
        return [dict(inherited) for _ in range(num_replicas)]
    share, rest = divmod(len(gpus), num_replicas)
    if rest or not share:
        raise UserError(
            f"evaluate.serve.num_replicas: {num_replicas} replicas cannot share {len(gpus)} GPUs ({','.join(gpus)}) evenly; "
            "change it, or set CUDA_VISIBLE_DEVICES to the GPUs that are to be used"
        )
    shares = [gpus[number * share : (number + 1) * share] for number in range(num_replicas)]
    return [{**inherited, "CUDA_VISIBLE_DEVICES": ",".join(each)} for each in shares]
