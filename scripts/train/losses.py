"""The losses of a training, and whether they go on after a resume."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The first loss after a resume may be at most twice the largest of the last few before, and a little more. Coarse on
# purpose: batches differ. The exact check is the comparison of every weight when training begins.
LOSS_WINDOW = 5
LOSS_FACTOR = 2.0
LOSS_MARGIN = 0.5


@dataclass(frozen=True)
class LossPoint:
    """What the trainer logged at one step; a value that it did not log is None."""

    step: int
    loss: float
    learning_rate: float | None = None
    grad_norm: float | None = None


def losses_of(log_history: Iterable[Mapping[str, Any]]) -> list[LossPoint]:
    """The losses in the trainer's own log, which also has summaries without one."""
    return [
        LossPoint(entry["step"], entry["loss"], entry.get("learning_rate"), entry.get("grad_norm"))
        for entry in log_history
        if "loss" in entry
    ]


def loss_limit(losses_before: Sequence[float]) -> float:
    """The largest loss that still goes on from `losses_before`."""
    if not losses_before:
        return math.inf
    return LOSS_FACTOR * max(losses_before[-LOSS_WINDOW:]) + LOSS_MARGIN


def loss_goes_on(losses_before: Sequence[float], loss_after: float) -> bool:
    """Whether the first loss after a resume fits those before it."""
    return math.isfinite(loss_after) and loss_after <= loss_limit(losses_before)
