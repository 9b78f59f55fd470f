"""The GPUs that a plan is made for (config/gpus.yaml)."""

from dataclasses import dataclass

import yaml

from scripts.common.reading import object_from
from scripts.common.root import ROOT

GPUS_PATH = ROOT / "config/gpus.yaml"


@dataclass(frozen=True)
class Gpu:
    """A card: GiB that the driver shows, peak of dense bfloat16, bandwidth of its memory."""

    name: str
    memory_gib: float
    peak_tflop_s: float
    bandwidth_gb_s: float


def known_gpus() -> dict[str, Gpu]:
    """By the keys of config/gpus.yaml."""
    entries = yaml.safe_load(GPUS_PATH.read_text(encoding="utf-8"))
    return {key: object_from(Gpu, entry, GPUS_PATH) for key, entry in entries.items()}
