"""Fills in the template of the report; the page depends on its inputs alone."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from scripts.evaluate.model_names import is_control
from scripts.evaluate.scores import Benchmark
from scripts.questions.pictures import read_pictures
from scripts.report import curves, numbers
from scripts.report.findings import (
    GroupTable,
    Headline,
    PairTable,
    SplitTable,
    group_tables,
    headline,
    pair_tables,
    split_tables,
    warnings,
)
from scripts.report.gallery import (
    PICTURE_BUDGET_BYTES,
    GalleryGroup,
    Picture,
    check_pictures,
    choose,
    embed_all,
    questions_of,
)
from scripts.report.hidden_secrets import without_secrets
from scripts.report.inputs import Inputs
from scripts.report.provenance import KEY_PACKAGES
from scripts.report.published import PublishedScore, published_scores
from scripts.report.templates import template_environment
from scripts.report.words import describe_models, fidelity_rows, flatten, trained_modules
from scripts.train.losses import LossPoint
from scripts.train.metrics import Metrics

TEMPLATE_DIR = Path(__file__).resolve().parent
TEMPLATE_NAME = "page.html.j2"
CURVE_TEMPLATE_NAME = "curve.svg.j2"

# Rows of the table of losses below the curves.
NUM_LOSS_ROWS = 12

# A question longer than this is folded.
MAX_QUESTION_LENGTH = 320

# Resumes that are listed for each stage.
MAX_RESUMES = 5

# Reasons of the ledger that are listed for each policy.
MAX_LEDGER_REASONS = 4

# An answer that could not be read is quoted up to here.
MAX_PREDICTION_LENGTH = 160


@dataclass(frozen=True)
class StageView:
    """One stage as the template draws it."""

    metrics: Metrics
    chart: curves.Chart
    sampled_losses: list[LossPoint]
    trained: list[str]
    command: str


@dataclass(frozen=True)
class BenchmarkView:
    """One benchmark as the template lays it out."""

    name: str
    headline: Headline
    tables: list[SplitTable]
    published: list[PublishedScore]
    pair_tables: list[PairTable]
    group_tables: list[GroupTable]
    gallery: list[GalleryGroup]
    pictures: dict[str, list[Picture]]
    num_questions: int
    num_seeds: int


def style_sheet(*names: str) -> Markup:
    """Style sheets of this directory, one after the other."""
    return Markup("\n".join((TEMPLATE_DIR / name).read_text(encoding="utf-8") for name in names))


def page_environment() -> jinja2.Environment:
    """Jinja for the pages, with the filters that only pages use."""
    environment = template_environment(TEMPLATE_DIR, is_html=True)
    environment.filters.update(
        points=numbers.points,
        p_value=numbers.p_value,
        duration=numbers.duration,
        decimal=numbers.decimal,
        short_hash=numbers.short_hash,
        words=lambda name: name.replace("_", " "),
        model_slug=lambda name: "".join(letter if letter.isalnum() else "-" for letter in name),
    )
    environment.tests["control"] = is_control
    return environment


def key_versions(inputs: Inputs) -> dict[str, str]:
    """Versions of the packages that made the numbers, as the programs themselves reported them."""
    reported: dict[str, set[str]] = {}
    provenances = [found for benchmark in inputs.benchmarks for found in benchmark.provenance.values()]
    sources = [metrics.versions for metrics in inputs.stages]
    sources += [dict(found.versions) for found in provenances]
    for source in sources:
        for name, version in source.items():
            if isinstance(version, str):
                reported.setdefault(name.replace("_", "-"), set()).add(version)
    return {name: " / ".join(sorted(reported[name])) for name in KEY_PACKAGES if name in reported}


def _stage_view(metrics: Metrics) -> StageView:
    return StageView(
        metrics,
        curves.draw(metrics),
        curves.sampled_losses(metrics.losses, NUM_LOSS_ROWS),
        trained_modules(metrics),
        shlex.join(without_secrets(metrics.command)),
    )


def _benchmark_view(inputs: Inputs, benchmark: Benchmark, budget_bytes: int) -> BenchmarkView:
    questions = questions_of(benchmark)
    gallery = choose(questions, inputs.settings.num_gallery_pictures, benchmark.name)
    chosen = [question for group in gallery for question in group.questions]
    encoded = read_pictures(benchmark.tsv_path, {question.index for question in chosen if question.has_picture})
    check_pictures(chosen, encoded, benchmark.tsv_path)
    pictures = embed_all(encoded, benchmark.tsv_path, budget_bytes)
    return BenchmarkView(
        benchmark.name,
        headline(benchmark),
        split_tables(benchmark),
        published_scores(benchmark.name),
        pair_tables(benchmark),
        group_tables(benchmark),
        gallery,
        pictures,
        len(questions),
        max(score.num_seeds for score in benchmark.scores),
    )


def render(inputs: Inputs) -> str:
    """The whole page."""
    models = {score.model for benchmark in inputs.benchmarks for score in benchmark.scores}
    modules = list(dict.fromkeys(name for metrics in inputs.stages for name in metrics.num_parameters))
    environment = page_environment()
    budget_bytes = PICTURE_BUDGET_BYTES // max(len(inputs.benchmarks), 1)
    return environment.get_template(TEMPLATE_NAME).render(
        inputs=inputs,
        style=style_sheet("colours.css", "chart.css", "page.css"),
        benchmarks=[_benchmark_view(inputs, benchmark, budget_bytes) for benchmark in inputs.benchmarks],
        stages=[_stage_view(metrics) for metrics in inputs.stages],
        modules=modules,
        descriptions=describe_models(sorted(models), inputs.stages),
        warnings=warnings(inputs.benchmarks, inputs.stages, inputs.ledger, inputs.commit.is_dirty),
        versions=key_versions(inputs),
        fidelity_rows=fidelity_rows(inputs.fidelity)[0],
        more_fidelity_rows=fidelity_rows(inputs.fidelity)[1],
        config_yaml=yaml.safe_dump(inputs.config, sort_keys=False, allow_unicode=True, width=100),
        provenance={
            benchmark.name: [(model, flatten(asdict(found))) for model, found in benchmark.provenance.items()]
            for benchmark in inputs.benchmarks
        },
        chart=curves,
        max_question_length=MAX_QUESTION_LENGTH,
        max_resumes=MAX_RESUMES,
        max_ledger_reasons=MAX_LEDGER_REASONS,
        max_prediction_length=MAX_PREDICTION_LENGTH,
    )


def render_curve(metrics: Metrics) -> str:
    """A stage's loss curve as an SVG file."""
    return page_environment().get_template(CURVE_TEMPLATE_NAME).render(
        drawn=curves.draw(metrics), chart=curves, style=style_sheet("colours.css", "chart.css")
    )  # fmt: skip
