"""Loss curves as lines of an inline SVG: scales, ticks and paths, no drawing library.

A page coloured by CSS variables can follow the reader's light or dark setting; a picture from a plotting library
cannot, and is larger.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scripts.report.numbers import decimal
from scripts.train.losses import LossPoint
from scripts.train.metrics import Metrics

# Units of the SVG's view box; the page scales it to the width of its column.
WIDTH, HEIGHT = 520, 296
LEFT, RIGHT = 50, 508
LOSS_TOP, LOSS_BOTTOM = 16, 196
RATE_TOP, RATE_BOTTOM = 222, 258

# More points than this cannot be distinguished at the width of the chart.
MAX_POINTS = 600

# With fewer points than this no smoothed line is drawn.
MIN_POINTS_FOR_SMOOTHING = 20


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    position: float
    label: str


@dataclass(frozen=True)
class Chart:
    """All that the template needs to draw one stage."""

    loss_path: str
    smooth_path: str
    smoothing_window: int
    rate_path: str
    rate_area: str
    step_ticks: list[Tick]
    loss_ticks: list[Tick]
    rate_peak: str
    resumes: list[Tick]
    last: Tick
    last_y: float
    steps_not_finite: list[int]
    description: str


def nice_ticks(top: float, num_wanted: int) -> list[float]:
    """Round values from 0 to at most `top`, about `num_wanted` of them."""
    if not top > 0:
        return [0.0]
    rough = top / num_wanted
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    return [round(step * place, 12) for place in range(int(top / step * 1.0001) + 1)]


def thin_out(points: list[tuple[float, float]], max_points: int) -> list[tuple[float, float]]:
    """At most about `max_points` of the points: of each stretch the lowest and the highest, so spikes stay."""
    if len(points) <= max_points:
        return points
    num_stretches = max_points // 2
    kept = []
    for place in range(num_stretches):
        begin = place * len(points) // num_stretches
        stretch = points[begin : (place + 1) * len(points) // num_stretches]
        low = min(stretch, key=lambda point: point[1])
        high = max(stretch, key=lambda point: point[1])
        kept += sorted({low, high})
    return kept


def moving_mean(values: list[float], window: int) -> list[float]:
    """The mean of up to `window` (odd) neighbours around each value; fewer at the ends, evenly on both sides."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    means = []
    for place in range(len(values)):
        reach = min(window // 2, place, len(values) - 1 - place)
        means.append((sums[place + reach + 1] - sums[place - reach]) / (2 * reach + 1))
    return means


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _segments(losses: list[LossPoint]) -> list[list[LossPoint]]:
    """Runs of steps with a finite loss."""
    runs: list[list[LossPoint]] = [[]]
    for point in losses:
        if math.isfinite(point.loss):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def draw(metrics: Metrics) -> Chart:
    """The chart of one stage's loss and learning rate."""
    runs = _segments(metrics.losses)
    finite = [point for run in runs for point in run]
    loss_marks = nice_ticks(max((point.loss for point in finite), default=1.0), 4)
    top = max([loss_marks[-1], *(point.loss for point in finite)]) or 1.0
    num_steps = max(metrics.num_steps, 1)

    def across(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * step / num_steps

    def down(loss: float) -> float:
        return LOSS_BOTTOM - (LOSS_BOTTOM - LOSS_TOP) * loss / top

    window = 0
    if len(finite) >= MIN_POINTS_FOR_SMOOTHING:
        window = max(3, len(finite) // 20) | 1
    share = MAX_POINTS / max(len(finite), 1)
    loss_path, smooth_path = "", ""
    for run in runs:
        max_points = max(int(share * len(run)), 2)
        places = [(across(point.step), down(point.loss)) for point in run]
        loss_path += _path(thin_out(places, max_points))
        if window:
            means = moving_mean([point.loss for point in run], window)
            smooth = [(across(point.step), down(mean)) for point, mean in zip(run, means, strict=True)]
            smooth_path += _path(thin_out(smooth, max_points // 2 or 1))

    rate_path, rate_area, peak = _draw_rates(metrics.losses, across)
    last = finite[-1] if finite else LossPoint(num_steps, 0.0, None, None)
    return Chart(
        loss_path=loss_path,
        smooth_path=smooth_path,
        smoothing_window=window,
        rate_path=rate_path,
        rate_area=rate_area,
        step_ticks=_step_ticks(num_steps, across),
        loss_ticks=[Tick(down(mark), f"{mark:g}") for mark in loss_marks],
        rate_peak=peak,
        resumes=[Tick(across(resume.step), f"{resume.step:,}") for resume in metrics.resumes],
        last=Tick(across(last.step), decimal(last.loss)),
        last_y=down(last.loss),
        steps_not_finite=[point.step for point in metrics.losses if not math.isfinite(point.loss)],
        description=(
            f"Loss of {metrics.stage} over {num_steps:,} steps: {decimal(metrics.first_loss)} at the first logged "
            f"step, {decimal(metrics.last_loss)} at the last."
        ),
    )


def _step_ticks(num_steps: int, across: Callable[[float], float]) -> list[Tick]:
    """Round step numbers and the last step; round ones close to the last are left out."""
    marks = [int(mark) for mark in nice_ticks(num_steps, 4) if mark == int(mark)]
    marks = [mark for mark in marks if mark <= num_steps * 0.88]
    return [Tick(across(mark), f"{mark:,}") for mark in [*marks, num_steps]]


def _draw_rates(losses: list[LossPoint], across: Callable[[float], float]) -> tuple[str, str, str]:
    """Path and filled area of the learning rate, and its highest value in words; empty when it was not logged."""
    rates = [(point.step, point.learning_rate) for point in losses if point.learning_rate is not None]
    peak = max((rate for _, rate in rates), default=0.0)
    if not peak > 0:
        return "", "", ""
    places = [(across(step), RATE_BOTTOM - (RATE_BOTTOM - RATE_TOP) * rate / peak) for step, rate in rates]
    line = _path(thin_out(places, MAX_POINTS // 2))
    return line, f"{line}L{places[-1][0]:.1f} {RATE_BOTTOM}L{places[0][0]:.1f} {RATE_BOTTOM}Z", f"{peak:.2g}"


def sampled_losses(losses: list[LossPoint], num_rows: int) -> list[LossPoint]:
    """At most `num_rows` of the logged steps, evenly spread, first and last included, for the table below the chart."""
    if len(losses) <= num_rows:
        return losses
    places = sorted({round(place * (len(losses) - 1) / (num_rows - 1)) for place in range(num_rows)})
    return [losses[place] for place in places]
