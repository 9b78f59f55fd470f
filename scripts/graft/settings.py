"""The sections `graft`, `calibration` and `fidelity` of the configuration, and the settings.json of a graft.

Fields are in the order of their names, in which files hold them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

SETTINGS_NAME = "settings.json"
MAX_SHARD_GB = 1_000_000

Architecture = Literal["qwen3", "qwen2_5_vl"]


@dataclass(frozen=True)
class GraftSettings:
    """How the graft is made."""

    aligner: Literal["fresh", "keep"]
    architecture: Architecture
    calibration: Literal["none", "affine"]
    link: Literal["auto", "never"]
    max_shard_gb: float

    @property
    def is_refitted(self) -> bool:
        return self.calibration == "affine"

    def findings(self, where: str) -> Iterator[str]:
        """Values that cannot work, and options that contradict each other; one line each."""
        if not 0 < self.max_shard_gb <= MAX_SHARD_GB:
            yield f"{where}.max_shard_gb: {self.max_shard_gb} found; expected a number above 0 and up to {MAX_SHARD_GB:,}"
        if self.is_refitted and self.architecture == "qwen3":
            yield (
                f"{where}.calibration: {self.calibration} contradicts {where}.architecture: qwen3, which loses nothing that "
                "could be refitted; write none, or architecture: qwen2_5_vl"
            )


@dataclass(frozen=True)
class SavedSettings:
    """settings.json: what a graft was made with."""

    graft: GraftSettings
    seed: int
    files: dict[str, str]  # sha256 of each file beside the weights


@dataclass(frozen=True)
class CalibrationSettings:
    """How q and k are refitted. The gate's `max_kl_nats` is not among them: it decides nothing of the refit."""

    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    max_tokens: int
    ridge: float
    sequence_length: int
    text: str


@dataclass(frozen=True)
class FidelitySettings:
    """On what text the graft is compared with its language donor."""

    dtype: Literal["float32", "bfloat16"]
    max_tokens: int
    text: str
