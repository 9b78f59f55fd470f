"""The report of a refit of two layers."""

from scripts.graft.calibration_report import CalibrationReport, LayerFigures, ProjectionFigures
from scripts.graft.settings import CalibrationSettings

SETTINGS = CalibrationSettings(
    device="cpu", dtype="float32", max_tokens=4096, ridge=1e-4, sequence_length=64, text="texts/calibration.txt"
)


def layer(q: float, k: float) -> LayerFigures:
    return LayerFigures(9.0, ProjectionFigures(q / 2, q), ProjectionFigures(k / 2, k), wall_time_s=1.0)


REPORT = CalibrationReport(
    settings=SETTINGS,
    text_sha256="ab",
    donor_sha256={"model.safetensors": "cd"},
    versions={"torch": "2.13.0"},
    signature="0123",
    num_threads=1,
    refit_sha256="ef",
    num_tokens=4096,
    num_tokens_held_out=512,
    peak_memory_bytes=10**9,
    layers=[layer(0.1, 0.3), layer(0.2, 0.1)],
)
