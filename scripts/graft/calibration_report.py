"""calibration.json: how q and k were refitted, and how near the refit comes, layer by layer. Written by calibrate.py."""

from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.reading import read_sealed, write_sealed
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


def write_calibration(path: Path, report: CalibrationReport) -> None:
    write_sealed(path, asdict(report))


def read_calibration(path: Path) -> CalibrationReport:
    """The report as it was written; UserError where the file was edited since."""
    return read_sealed(CalibrationReport, path)


def check_refit_is_reported(refit_path: Path, refit_sha256: str, report_path: Path) -> None:
    """Raises UserError where the refitted tensors are not those that the report is about."""
    if (stated := read_calibration(report_path).refit_sha256) != refit_sha256:
        raise UserError(
            f"{refit_path}: sha256 {refit_sha256} found, {stated} expected by {report_path}; it was changed since it was made; "
            "remove both and calibrate again"
        )
