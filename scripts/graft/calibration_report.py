"""calibration.json: how q and k were refitted, and how near the refit comes, layer by layer. Written by calibrate.py."""

from dataclasses import dataclass

from scripts.graft.settings import CalibrationSettings

PROJECTIONS = ("q", "k")


@dataclass(frozen=True)
class ProjectionFigures:
    """Root of the share of the targets' variance that is left: on the tokens that were fitted, and on those held out."""

    relative_residual: float
    relative_residual_held_out: float


@dataclass(frozen=True)
class LayerFigures:
    """The fit of one layer; `condition_at_least` is a lower bound of the condition number."""

    condition_at_least: float
    q: ProjectionFigures
    k: ProjectionFigures
    wall_time_s: float


@dataclass(frozen=True)
class RefitBasis:
    """What determines the refit: the signature of an interrupted one is made from it."""

    settings: CalibrationSettings
    text_sha256: str
    donor_sha256: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True)
class CalibrationReport(RefitBasis):
    """calibration.json."""

    signature: str
    num_threads: int
    refit_sha256: str
    num_tokens: int
    num_tokens_held_out: int
    peak_memory_bytes: int
    layers: list[LayerFigures]
