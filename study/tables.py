"""The study's tables for people: means over the seeds, and what the variants of a seed differ by.

The differences are what counts: all variants of a seed have the same donors, the same data in the same order, the same steps.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.input_files import read_json
from study import design
from study.outcomes import Outcomes

REFERENCE = "lossless"  # what the other variants are compared with


@dataclass(frozen=True)
class Column:
    """A figure of one model, its heading and its number of digits behind the point."""

    heading: str
    model: str
    figure: str
    num_digits: int = 3


ARM_COLUMNS = (
    Column("stage 1: pictures", "stage1", "pictures"),
    Column("stage 2: trained", "stage2", "pictures_trained"),
    Column("untrained", "stage2", "pictures_untrained"),
    Column("shuffled", "stage2", "shuffled"),
    Column("words", "stage2", "words"),
    Column("perplexity", "stage2", "perplexity", 1),
)
GRAFT_COLUMNS = (
    Column("KL from the donor, nats", "graft", "kl_from_donor_nats"),
    Column("words", "graft", "words"),
    Column("perplexity", "graft", "perplexity", 1),
)
LEGEND = """\
Shares of right answers, to the last token: *pictures*, questions about two test pictures, of which half are calculations
that training showed with other pictures (*trained*) and half such as it never showed (*untrained*); *shuffled*, the same
questions about another question's pictures; *words*, all calculations in words, without pictures. *Perplexity* is that of
English which no model has read. The language donor learned words and English; neither comes in the stages' training."""


def spread(values: Sequence[float], num_digits: int) -> str:
    """`0.51 (0.49 – 0.53)`: mean, least and greatest."""
    low, high = min(values), max(values)
    return f"{statistics.fmean(values):.{num_digits}f} ({low:.{num_digits}f} – {high:.{num_digits}f})"


def differences(values: Mapping[int, float], reference: Mapping[int, float], num_digits: int) -> str:
    """`+0.021 (+0.010, +0.031, +0.022)`: mean and each seed's own."""
    by_seed = [values[seed] - reference[seed] for seed in sorted(reference)]
    of_seeds = ", ".join(f"{value:+.{num_digits}f}" for value in by_seed)
    return f"{statistics.fmean(by_seed):+.{num_digits}f} ({of_seeds})"


def spreads(outcomes: Outcomes, size: str, arm: str, variant: str, columns: Sequence[Column]) -> list[str]:
    """A cell a column: over the seeds."""
    values = (outcomes.by_seed(size, arm, variant, column.model, column.figure).values() for column in columns)
    return [spread(list(of_column), column.num_digits) for of_column, column in zip(values, columns, strict=True)]


def differences_from_reference(
    outcomes: Outcomes, size: str, arm: str, variant: str, columns: Sequence[Column]
) -> list[str]:
    """A cell a column: what the variant has more than the reference, seed by seed."""
    return [
        differences(
            outcomes.by_seed(size, arm, variant, column.model, column.figure),
            outcomes.by_seed(size, arm, REFERENCE, column.model, column.figure),
            column.num_digits,
        )
        for column in columns
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines, and a blank one."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def size_line(config: Mapping[str, Any], size: str, results_dir: Path) -> str:
    """How large the models of a size are, how far their donors' gains went, how long they are trained."""
    run = next(run for run in design.runs(config) if run.size == size)
    score = read_json(run.path(results_dir, design.GRAFT).with_suffix(".score.json"))
    directories = [Path(config["resources"]) / f"{size}-seed{seed}-llm" for seed in config["seeds"]]
    gains = [read_json(directory / "training.json")["qk_gain_quantiles"] for directory in directories]
    least, low, high, greatest = (
        choose(of_donor[name] for of_donor in gains)
        for choose, name in ((min, "min"), (min, "5%"), (max, "95%"), (max, "max"))
    )
    steps = " and ".join(f"{count} steps of {stage}" for stage, count in config["sizes"][size]["num_steps"].items())
    return (
        f"- {size}: {score['num_parameters']:,} parameters ({run.variant}); q/k gains of the donors {least:.2f} to "
        f"{greatest:.2f}, nine of ten between {low:.2f} and {high:.2f}; {steps}, "
        f"{config['training']['per_device_train_batch_size']} questions each"
    )


def grafts_table(config: Mapping[str, Any], outcomes: Outcomes) -> list[str]:
    """What the donors know and what each graft kept of it, before any training."""
    rows = []
    for size, of_size in config["sizes"].items():
        arm = of_size["arms"][0]
        of_donor = [Column(column.heading, "donor", column.figure, column.num_digits) for column in GRAFT_COLUMNS[1:]]
        rows.append([size, "the language donor", "", *spreads(outcomes, size, arm, REFERENCE, of_donor)])
        for variant in config["variants"]:
            rows.append([size, variant, *spreads(outcomes, size, arm, variant, GRAFT_COLUMNS)])
    return markdown_table(("size", "model", *(column.heading for column in GRAFT_COLUMNS)), rows)


def arms_tables(config: Mapping[str, Any], outcomes: Outcomes, size: str) -> list[str]:
    """What comes out of each arm, and by how much the other variants differ from the reference."""
    header = ("arm", "variant", *(column.heading for column in ARM_COLUMNS))
    arms, variants = config["sizes"][size]["arms"], list(config["variants"])
    means = [
        [arm, variant, *spreads(outcomes, size, arm, variant, ARM_COLUMNS)] for arm in arms for variant in variants
    ]
    compared = [
        [arm, variant, *differences_from_reference(outcomes, size, arm, variant, ARM_COLUMNS)]
        for arm in arms
        for variant in variants
        if variant != REFERENCE
    ]
    seeds = ", ".join(map(str, config["seeds"]))
    return [
        *markdown_table(header, means),
        f"Less {REFERENCE}, mean and seed by seed ({seeds}):",
        "",
        *markdown_table(header, compared),
    ]


def markdown(config: Mapping[str, Any], results_dir: Path, outcomes: Outcomes) -> str:
    """The whole summary."""
    all_runs = list(design.runs(config))
    versions = read_json(all_runs[0].path(results_dir, design.STAGE2) / "metrics.json")["versions"]
    named = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    lines = [
        "# What the lost q/k norms cost",
        "",
        f"Made by `study/Snakefile`: {len(all_runs)} runs, {len(config['seeds'])} seeds, each with donors of its own; {named}.",
        "Small models on a CPU: no 8B was trained. Each cell has the mean over the seeds, the least and the greatest.",
        "",
        *(size_line(config, size, results_dir) for size in config["sizes"]),
        "",
        *LEGEND.splitlines(),
        "",
        "## Grafts before any training",
        "",
        *grafts_table(config, outcomes),
    ]
    for size in config["sizes"]:
        lines += [f"## {size}", "", *arms_tables(config, outcomes, size)]
    return "\n".join(lines)
