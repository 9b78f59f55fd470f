"""The text of a model card: front matter for hubs, Markdown for people."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from scripts.data.source_text import file_of_source
from scripts.evaluate.model_names import base_of, is_control, pipeline_order
from scripts.evaluate.scores import Benchmark, Score
from scripts.report import numbers
from scripts.report.templates import template_environment
from scripts.report.words import describe_models, fidelity_rows
from scripts.train.local_paths import without_local_paths
from scripts.upload.front_matter import FENCE
from scripts.upload.inputs import CardInputs, DonorView, StageView
from scripts.upload.licenses import UNKNOWN, License, identifier_of_all

TEMPLATE_DIR = Path(__file__).resolve().parent
TEMPLATE_NAME = "card.md.j2"

SOURCES = {
    "modelscope": "ModelScope",
    "huggingface": "Hugging Face",
    "local": "a directory of the maker's",
    "demo": "made on the spot",
}
PIPELINE_TAG = "image-text-to-text"

# Markdown is also read in plain editors, so it has no narrow spaces and no word joiners.
_PLAIN = str.maketrans({numbers.THIN_SPACE: " ", numbers.NO_BREAK: None})


def is_file(source: str) -> bool:
    """Whether a source of training data is a file of the user's and no id of a hub."""
    return file_of_source(source) is not None


def dataset_id(source: str) -> str:
    """The id in `hf::id:subset#number`."""
    return source.rpartition("::")[2].partition("#")[0].partition(":")[0]


def short_name(view: DonorView) -> str:
    """`Qwen3-8B` of `Qwen/Qwen3-8B`."""
    return view.name.rpartition("/")[2]


def overall_scores(benchmark: Benchmark) -> list[Score]:
    """The rows over all questions of each split, the models in the order in which they were made."""
    overall = [score for score in benchmark.scores if score.group == "overall"]
    return sorted(overall, key=lambda score: (score.split, pipeline_order(score.model)))


def front_matter(inputs: CardInputs) -> dict[str, Any]:
    """What hubs read. Keys that no file of the run gives, such as the language, are left out."""
    values: dict[str, Any] = {
        "license": identifier_of_all([view.license for view in inputs.donors]),
        "library_name": "transformers",
        "pipeline_tag": PIPELINE_TAG,
        "tags": ["vlgraft", str(inputs.model_config["model_type"])],
    }
    if base_models := [view.name for view in inputs.donors if view.is_on_a_hub]:
        values["base_model"] = base_models
    sources = [source for stage in inputs.stages for source in stage.sources if not is_file(source)]
    if sources:
        values["datasets"] = list(dict.fromkeys(map(dataset_id, sources)))
    results = [_result(inputs, benchmark, score) for benchmark, score in _own_scores(inputs)]
    if results:
        name = f"{short_name(inputs.donor('llm'))}-{short_name(inputs.donor('vl'))}-{inputs.stage}"
        values["model-index"] = [{"name": name, "results": results}]
    return values


def _own_scores(inputs: CardInputs) -> list[tuple[Benchmark, Score]]:
    return [
        (benchmark, score)
        for benchmark in inputs.benchmarks
        for score in overall_scores(benchmark)
        if score.model == inputs.stage
    ]


def _result(inputs: CardInputs, benchmark: Benchmark, score: Score) -> dict[str, Any]:
    """One result as the hubs' model-index has it."""
    interval = numbers.interval(score.ci95_low, score.ci95_high).translate(_PLAIN)
    return {
        "task": {"type": PIPELINE_TAG},
        "dataset": {
            "name": benchmark.name,
            "type": inputs.dataset_names[benchmark.name],
            "split": score.split,
        },
        "metrics": [
            {
                "type": score.metric,
                "value": score.accuracy,
                "name": f"{score.metric} on {numbers.count(score.num_questions)} questions (95 % interval {interval} %)",
            }
        ],
    }


def license_words(license: License | None) -> str:
    """The license that a donor's files state, and which file states it."""
    if license is None:
        return "not known: its files do not say"
    more = ", ".join(part for part in (license.name, license.link) if part)
    return f"{license.identifier}{f' ({more})' if more else ''}, says its {license.said_by}"


def donor_rows(vl: DonorView, llm: DonorView) -> list[tuple[str, str, str]]:
    """The two donors side by side."""

    def column(view: DonorView) -> list[str]:
        size = f"{len(view.donor.files)}, {numbers.size(view.donor.num_bytes)}"
        license_said = license_words(view.license)
        return [
            plain(view.name),
            SOURCES[view.donor.source.kind],
            plain(view.donor.source.revision or "none"),
            plain(license_said),
            size,
            f"`{view.files_sha256}`",
        ]

    labels = (
        "donor",
        "from",
        "revision",
        "license",
        "files recorded",
        "sha256 of the lines `sha256  name` of its files",
    )
    return list(zip(labels, column(vl), column(llm), strict=True))


def architecture_rows(model_config: dict[str, Any], stages: Sequence[StageView]) -> list[tuple[str, str]]:
    """The shape of the model: config.json, flat or nested, and the parameters that the trainer counted."""
    text, vision = model_config.get("text_config", model_config), model_config["vision_config"]
    rows = [
        ("class", model_config["architectures"][0]),
        ("dtype", model_config.get("dtype") or model_config["torch_dtype"]),
        (
            "language model",
            f"{text['num_hidden_layers']} layers, hidden size {text['hidden_size']}, {text['num_attention_heads']} heads, "
            f"{text['num_key_value_heads']} key/value heads, vocabulary {text['vocab_size']}, at most "
            f"{text['max_position_embeddings']} tokens",
        ),
        ("vision tower", f"{vision['depth']} blocks, hidden size {vision['hidden_size']}"),
    ]
    parameters = stages[-1].metrics.num_parameters
    return rows + [(f"parameters, {name.replace('_', ' ')}", numbers.count(n)) for name, n in parameters.items()]


def training_rows(stage: StageView) -> list[tuple[str, str]]:
    """Inputs, settings and results of a stage."""
    metrics, settings, dataset = stage.metrics, stage.settings, stage.dataset
    versions = ", ".join(f"{name} {version}" for name, version in metrics.versions.items())
    return [
        ("trained", ", ".join(stage.trained)),
        ("data", ", ".join(map(plain, stage.sources))),
        ("rows", f"{numbers.count(dataset.num_rows)}, pictures {numbers.count(dataset.num_pictures)}"),
        ("sha256 of the data", dataset.sha256),
        ("samples seen", numbers.count(metrics.num_samples_seen)),
        ("tokens seen", numbers.count(metrics.num_tokens_seen)),
        ("optimizer steps", numbers.count(metrics.num_steps)),
        (
            "loss, first and last logged",
            f"{numbers.decimal(metrics.first_loss)} and {numbers.decimal(metrics.last_loss)}",
        ),
        ("training time", numbers.duration(metrics.wall_time_s)),
        ("processes", f"{metrics.num_processes}, DeepSpeed {settings.deepspeed or 'not used'}"),
        ("seed", str(settings.seed)),
        *((f"`{name}`", plain(value)) for name, value in {**settings.environment, **settings.flags}.items()),
        ("versions", versions),
        ("sha256 of the checkpoint", metrics.checkpoint_sha256),
    ]


def pixel_limits(environment: Mapping[str, Any], picture_config: dict[str, Any]) -> tuple[int, int] | None:
    """Fewest and most pixels of a picture in training; None where only preprocessor_config.json decided."""
    if "MAX_PIXELS" not in environment:
        return None
    most = int(environment["MAX_PIXELS"])
    # transformers 5 writes `size`, earlier ones wrote `min_pixels`; its classes' default is 56 x 56.
    fewest = (
        environment.get("MIN_PIXELS")
        or picture_config.get("min_pixels")
        or picture_config.get("size", {}).get("shortest_edge", 56 * 56)
    )
    return min(int(fewest), most), most


def asked_how(benchmark: Benchmark) -> str:
    """Harness, server and settings; evaluate.make_table has checked that they are the same for all rows."""
    found = next(iter(benchmark.provenance.values()))
    asked_by = ", ".join(
        f"{name} {found.versions[name]}" for name in ("evalscope", "ms-vlmeval", "ms-swift") if name in found.versions
    )
    chosen = ", ".join(f"{name} {found.settings[name]}" for name in ("temperature", "max_tokens"))
    num_seeds = len(found.seeds)
    sampled = f", mean of {num_seeds} seeds" if num_seeds > 1 else ""
    return f"{asked_by}; backend {found.harness}, served by {found.backend}; {chosen}{sampled}"


# What Markdown or HTML would take for its own; an underscore only where a word begins or ends.
_MARKUP = re.compile(r"[\\`*\[\]<>]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|~(?=~)")


def plain(value: object) -> str:
    """A text of the user's as Markdown shows it letter by letter."""
    return _MARKUP.sub(lambda found: "\\" + found.group(), str(value))


def cell(value: object) -> str:
    """A value escaped for a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _environment() -> jinja2.Environment:
    environment = template_environment(TEMPLATE_DIR, is_html=False)
    environment.filters.update(cell=cell, plain=plain, short_name=short_name)
    return environment


def render(inputs: CardInputs) -> str:
    """The whole card; it depends on its inputs alone."""
    models = {score.model for benchmark in inputs.benchmarks for score in benchmark.scores}
    own_stage = inputs.stages[-1]
    text = _environment().get_template(TEMPLATE_NAME).render(
        inputs=inputs,
        vl=inputs.donor("vl"),
        llm=inputs.donor("llm"),
        donor_rows=donor_rows(inputs.donor("vl"), inputs.donor("llm")),
        license_is_known=identifier_of_all([view.license for view in inputs.donors]) != UNKNOWN,
        own_stage=own_stage,
        needs_code="auto_map" in inputs.model_config,
        pixel_limits=pixel_limits(own_stage.settings.environment, inputs.picture_config),
        scores={benchmark.name: overall_scores(benchmark) for benchmark in inputs.benchmarks},
        asked_how={benchmark.name: asked_how(benchmark) for benchmark in inputs.benchmarks},
        descriptions=describe_models(sorted(models), [stage.metrics for stage in inputs.stages]),
        was_evaluated=bool(_own_scores(inputs)),
        has_control=any(is_control(model) and base_of(model) == inputs.stage for model in models),
        fidelity_rows=fidelity_rows(inputs.fidelity)[0],
        architecture_rows=architecture_rows(inputs.model_config, inputs.stages),
        training_rows={stage.metrics.stage: training_rows(stage) for stage in inputs.stages},
    )  # fmt: skip
    head = yaml.safe_dump(without_local_paths(front_matter(inputs)), sort_keys=False, allow_unicode=True, width=100)
    return f"{FENCE}\n{head}{FENCE}\n\n{text.translate(_PLAIN)}"
