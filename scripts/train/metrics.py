"""A stage's metrics.json: written once its training is proven (scripts/train/proof.py), read by report and model card."""

import itertools
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.common.reading import read_sealed, write_sealed
from scripts.train.losses import LossPoint

METRICS_NAME = "metrics.json"
CHECKPOINT_NAME = "checkpoint"  # the directory beside it


@dataclass(frozen=True)
class Resume:
    """Training went on from a checkpoint at `step`; the losses logged just before and after."""

    step: int
    loss_before: float | None
    loss_after: float | None


@dataclass(frozen=True)
class StepTimes:
    """How long a step took, in seconds: the median, and the time that 90 % of the steps kept to."""

    median: float
    p90: float


@dataclass(frozen=True)
class Metrics:
    """What one training stage did. Dictionaries are by module group (scripts/train/tensor_changes.py: GROUPS)."""

    stage: str
    num_steps: int
    num_processes: int
    num_rows: int
    num_rows_left_out_each_epoch: int
    num_samples_seen: int
    num_samples_expected: int
    num_tokens_seen: int
    num_parameters: dict[str, int]
    num_trainable_parameters: dict[str, int]
    tensors_changed: dict[str, int]
    tensors_total: dict[str, int]
    tensors_trained_but_unchanged: list[str]
    first_loss: float | None
    last_loss: float | None
    losses: list[LossPoint]
    step_time_s: StepTimes
    num_tokens_per_s: float | None
    peak_gpu_memory_gib: float | None
    wall_time_s: float
    resumes: list[Resume]
    versions: dict[str, str]
    command: list[str]
    signature: str
    checkpoint_sha256: str
    settings_sha256: str  # of settings.json, which is no part of the model


def write_metrics(path: Path, metrics: Metrics) -> None:
    write_sealed(path, asdict(metrics))


def require_settings_unedited(settings_path: Path, metrics: Metrics, metrics_path: Path) -> None:
    """Raises UserError where a checkpoint's settings.json is not the one that its stage has written."""
    if (found := sha256_of_file(settings_path)) != metrics.settings_sha256:
        raise UserError(
            f"{settings_path}: edited since it was written: sha256 {found} found, {metrics.settings_sha256} in "
            f"{metrics_path}; bring the file back as it was, or train {metrics.stage} again"
        )


def declared_sha256(path: Path) -> str:
    """The sha256 of the checkpoint that metrics are about."""
    return read_sealed(Metrics, path, takes_nan=True).checkpoint_sha256


def read_metrics(stage: str, path: Path) -> Metrics:
    """The metrics of one stage; UserError when they were edited, are of another stage or contradict themselves."""
    metrics = read_sealed(Metrics, path, takes_nan=True)
    if metrics.stage != stage:
        raise UserError(f"{path}: metrics of `{metrics.stage}` found; expected those of `{stage}`; pass the right file")
    times = (metrics.wall_time_s, metrics.step_time_s.median, metrics.step_time_s.p90)
    rates = (point.learning_rate for point in metrics.losses)
    measured = (*times, metrics.num_tokens_per_s, metrics.peak_gpu_memory_gib, *rates)
    if not all(value is None or math.isfinite(value) for value in measured):
        raise UserError(
            f"{path}: a time, a rate or a size that is not finite found; expected only losses to be so; train this stage again"
        )
    for before, after in itertools.pairwise(metrics.losses):
        if after.step <= before.step:
            raise UserError(
                f"{path}: step {after.step} follows step {before.step} in `losses`; expected rising steps; "
                "train this stage again"
            )
    if metrics.losses and metrics.losses[-1].step > metrics.num_steps:
        raise UserError(
            f"{path}: a loss of step {metrics.losses[-1].step} is logged, but the stage has {metrics.num_steps} "
            "steps; train this stage again"
        )
    for table in (metrics.num_trainable_parameters, metrics.tensors_changed, metrics.tensors_total):
        if table.keys() != metrics.num_parameters.keys():
            raise UserError(
                f"{path}: modules {', '.join(sorted(table))} in one place and "
                f"{', '.join(sorted(metrics.num_parameters))} in another; train this stage again"
            )
    return metrics
