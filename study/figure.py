"""The study's figure: a row a size; how training went, and what each arm came to."""

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study import design
from study.outcomes import Outcomes, losses_of

# Okabe and Ito's palette, told apart by the colour-blind too.
COLOURS = ("#D55E00", "#E69F00", "#0072B2", "#009E73", "#CC79A7")
NUM_STEPS_SMOOTHED = 10
STYLE: Any = {"svg.hashsalt": "study", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
VARIANT_OFFSET = 0.22  # of the distance between two arms
ROW_HEIGHT_IN, WIDTH_IN = 3.6, 15


def smoothed(values: Sequence[float]) -> list[float]:
    """Each value's mean with those just before it."""
    return [
        statistics.fmean(values[max(0, place + 1 - NUM_STEPS_SMOOTHED) : place + 1]) for place in range(len(values))
    ]


def colour_of(config: Mapping[str, Any], variant: str) -> str:
    """The same in all panels."""
    return COLOURS[list(config["variants"]).index(variant)]


def draw_losses(axes: Axes, config: Mapping[str, Any], size: str, results_dir: Path) -> None:
    """Training loss of the first arm, a line a seed."""
    arm = config["sizes"][size]["arms"][0]
    for run in design.runs(config):
        if (run.size, run.arm) == (size, arm):
            losses = smoothed(losses_of(run, results_dir))
            axes.plot(range(1, len(losses) + 1), losses, color=colour_of(config, run.variant), linewidth=0.9)
    axes.axvline(design.num_steps(config, size, "stage1"), color="0.6", linewidth=0.8, linestyle=":")
    axes.set_title(f"{size}, {arm}: loss in stage 1 | stage 2, by step", fontsize=9)
    axes.set_ylim(bottom=0)


def draw_arms(
    axes: Axes, config: Mapping[str, Any], size: str, values: Mapping[tuple[str, str], Sequence[float]], title: str
) -> None:
    """A row an arm: each seed a dot, the mean a stroke; variants one under the other. `values` by arm and variant."""
    arms, variants = config["sizes"][size]["arms"], list(config["variants"])
    for place, arm in enumerate(arms):
        for number, variant in enumerate(variants):
            y = place + (number - (len(variants) - 1) / 2) * VARIANT_OFFSET
            of_seeds, colour = values[arm, variant], colour_of(config, variant)
            axes.plot(of_seeds, [y] * len(of_seeds), "o", color=colour, markersize=3.5, alpha=0.7)
            axes.plot([statistics.fmean(of_seeds)] * 2, [y - 0.1, y + 0.1], color=colour, linewidth=1.8)
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
    axes.grid(axis="x", color="0.9")


def stage2_values(
    config: Mapping[str, Any], outcomes: Outcomes, size: str, figure: str, relative_to: str | None = None
) -> dict[tuple[str, str], list[float]]:
    """A figure of stage 2 by arm and variant, a value a seed; in times that of the model `relative_to`, if given."""
    values = {}
    for arm in config["sizes"][size]["arms"]:
        for variant in config["variants"]:
            after = outcomes.by_seed(size, arm, variant, "stage2", figure)
            before = outcomes.by_seed(size, arm, variant, relative_to, figure) if relative_to else {}
            values[arm, variant] = [value / before.get(seed, 1.0) for seed, value in after.items()]
    return values


def draw_all(config: Mapping[str, Any], results_dir: Path, outcomes: Outcomes) -> Figure:
    """A row of four panels a size."""
    sizes = list(config["sizes"])
    figure = Figure(figsize=(WIDTH_IN, ROW_HEIGHT_IN * len(sizes)), layout="constrained")
    grid = figure.subplots(len(sizes), 4, squeeze=False)
    for size, (losses, pictures, words, english) in zip(sizes, grid, strict=True):
        draw_losses(losses, config, size, results_dir)
        values = stage2_values(config, outcomes, size, "pictures")
        draw_arms(pictures, config, size, values, "after stage 2: right about pictures")
        values = stage2_values(config, outcomes, size, "words")
        draw_arms(words, config, size, values, "after stage 2: right in words, no picture")
        values = stage2_values(config, outcomes, size, "perplexity", "donor")
        draw_arms(english, config, size, values, "after stage 2: perplexity of English / the donor's")
        english.set_xscale("log")  # a rate that is too high for an untrained aligner costs orders of magnitude
        for axes in (words, english):
            axes.set_yticklabels([])
    handles = [Line2D([], [], color=colour_of(config, name), linewidth=2, label=name) for name in config["variants"]]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    return figure


def figure_svg(config: Mapping[str, Any], results_dir: Path, outcomes: Outcomes) -> str:
    """The whole figure; the same outcomes give the same bytes."""
    buffer = io.StringIO()
    with rc_context(STYLE):
        draw_all(config, results_dir, outcomes).savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
