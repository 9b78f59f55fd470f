"""A stage's metrics.json: how it is read and checked."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.reading import require, require_integers


@dataclass(frozen=True)
class LossPoint:
    """What the trainer logged at one step; a value that it did not log is None."""

    step: int
    loss: float
    learning_rate: float | None
    grad_norm: float | None


@dataclass(frozen=True)
class Resume:
    """Training went on from a checkpoint at `step`; the losses logged just before and after."""

    step: int
    loss_before: float | None
    loss_after: float | None


@dataclass(frozen=True)
class Metrics:
    """What one training stage reports of itself."""

    stage: str
    num_steps: int
    num_samples_seen: int
    num_samples_expected: int
    num_trainable_parameters: dict[str, int]
    num_parameters: dict[str, int]
    tensors_changed: dict[str, int]
    tensors_total: dict[str, int]
    first_loss: float | None
    last_loss: float | None
    losses: list[LossPoint]
    step_time_median_s: float
    step_time_p90_s: float
    num_tokens_per_s: float | None
    peak_gpu_memory_gib: float | None
    wall_time_s: float
    resumes: list[Resume]
    versions: dict[str, str]
    command: list[str]
    checkpoint_sha256: str


def read_metrics(stage: str, path: Path) -> Metrics:
    """The metrics of one stage; UserError when they are of another stage or their steps run backwards."""
    value, where = read_json(path), str(path)
    if (found := require(value, "stage", str, where)) != stage:
        raise UserError(f"{path}: metrics of `{found}` found; expected those of `{stage}`; pass the right file")
    number, optional = (int, float), (int, float, type(None))
    losses = [
        LossPoint(
            require(point, "step", int, f"{where}: losses"),
            float(require(point, "loss", number, f"{where}: losses")),
            point.get("learning_rate"),
            point.get("grad_norm"),
        )
        for point in require(value, "losses", list, where)
    ]
    for before, after in itertools.pairwise(losses):
        if after.step <= before.step:
            raise UserError(
                f"{path}: step {after.step} follows step {before.step} in `losses`; expected rising steps; "
                "make the metrics again from the stage's log"
            )
    step_time = require(value, "step_time_s", dict, where)
    return Metrics(
        stage=stage,
        num_steps=require(value, "num_steps", int, where),
        num_samples_seen=require(value, "num_samples_seen", int, where),
        num_samples_expected=require(value, "num_samples_expected", int, where),
        num_trainable_parameters=require_integers(value, "num_trainable_parameters", where),
        num_parameters=require_integers(value, "num_parameters", where),
        tensors_changed=require_integers(value, "tensors_changed", where),
        tensors_total=require_integers(value, "tensors_total", where),
        first_loss=require(value, "first_loss", optional, where),
        last_loss=require(value, "last_loss", optional, where),
        losses=losses,
        step_time_median_s=float(require(step_time, "median", number, f"{where}: step_time_s")),
        step_time_p90_s=float(require(step_time, "p90", number, f"{where}: step_time_s")),
        num_tokens_per_s=require(value, "num_tokens_per_s", optional, where),
        peak_gpu_memory_gib=require(value, "peak_gpu_memory_gib", optional, where),
        wall_time_s=float(require(value, "wall_time_s", number, where)),
        resumes=[
            Resume(
                require(resume, "step", int, f"{where}: resumes"),
                require(resume, "loss_before", optional, f"{where}: resumes"),
                require(resume, "loss_after", optional, f"{where}: resumes"),
            )
            for resume in require(value, "resumes", list, where)
        ],
        versions={name: str(version) for name, version in require(value, "versions", dict, where).items()},
        command=[str(word) for word in require(value, "command", list, where)],
        checkpoint_sha256=require(value, "checkpoint_sha256", str, where),
    )


def check_metrics(metrics: Metrics, path: Path) -> None:
    """Refuses metrics whose logged steps go beyond the end, or whose modules do not match."""
    if metrics.losses and metrics.losses[-1].step > metrics.num_steps:
        raise UserError(
            f"{path}: a loss of step {metrics.losses[-1].step} is logged, but the stage has {metrics.num_steps} "
            "steps; train this stage again"
        )
    tables = (metrics.num_trainable_parameters, metrics.tensors_changed, metrics.tensors_total)
    for table in tables:
        if table.keys() != metrics.num_parameters.keys():
            raise UserError(
                f"{path}: modules {', '.join(sorted(table))} in one place and "
                f"{', '.join(sorted(metrics.num_parameters))} in another; train this stage again"
            )
