"""The usual arguments of each program, for the run that a configuration describes: one function a program.

Rules take their commands from here, and so does `python scripts PROGRAM --config FILE` (scripts/__main__.py): by hand a
program does what its rule does. A program is given exactly its own section of the configuration, as JSON, so that a
rule's command, and with it what reruns, changes with that section alone.

A function is named `SUBJECT_PROGRAM` after scripts/SUBJECT/PROGRAM.py (`graft` for scripts/graft/graft.py). Its first
parameter is the run's layout; the others are what tells its jobs apart: a stage, a benchmark, a model.
"""

import inspect
import json
import shlex
from collections.abc import Callable
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.reading import seal_of
from scripts.data.settings import TEMPLATE_FLAGS
from scripts.evaluate.model_names import base_of, control_of
from scripts.workflow.layout import DIGITS_DIR, STAGES, Layout, before, shipped, text_path
from scripts.workflow.step import Option, Step

# The demo's data and donors


def demo_make_digits(layout: Layout) -> Step:
    return Step("train", {"settings": layout.config["demo"]["digits"], "output-dir": DIGITS_DIR})


def demo_make_demo_vision_donor(layout: Layout) -> Step:
    settings = {"settings": layout.config["demo"]["vision_donor"], "seed": layout.config["seed"]}
    return Step("train", {"digits-dir": DIGITS_DIR, **settings, "output-dir": layout.demo_donor_dir("vl")})


def demo_make_demo_language_donor(layout: Layout) -> Step:
    settings = {"settings": layout.config["demo"]["language_donor"], "seed": layout.config["seed"]}
    return Step("train", {**settings, "output-dir": layout.demo_donor_dir("llm")})


# Donors and data


def donors_fetch_donor(layout: Layout, role: str) -> Step:
    source = {"role": role, "source": layout.config["donors"][role]}
    return Step("train", {**source, "dir": layout.donor_dir(role), "manifest": layout.donor_manifest(role)})


def donors_check_donor(layout: Layout, role: str) -> Step:
    donor = {"role": role, "dir": layout.donor_dir(role), "manifest": layout.donor_manifest(role)}
    return Step("train", {**donor, "output": layout.donor_check(role)})


def data_prepare_dataset(layout: Layout, stage: str) -> Step:
    options: dict[str, Option] = {
        "sources": json.dumps(layout.config[stage]["datasets"]),
        "seed": layout.config["seed"],
        "settings": layout.config["data"],
    }
    return Step("train", {**options, "output": layout.prepared_rows(stage), "origins": layout.row_origins(stage)})


def data_check_dataset(layout: Layout, stage: str) -> Step:
    flags = layout.config[stage]["flags"]
    encoding = {
        "environment": layout.config[stage]["environment"],
        "flags": {name: value for name, value in flags.items() if name in TEMPLATE_FLAGS},
    }
    options: dict[str, Option] = {
        "dataset": layout.prepared_rows(stage),
        "origins": layout.row_origins(stage),
        "settings": layout.config["data"],
        "model-dir": layout.model_files_dir,
        "encoding": encoding,
    }
    return Step("train", {**options, "kept": layout.dataset(stage), "output": layout.dataset_check(stage)})


def plan_make_plan(layout: Layout) -> Step:
    donors = {"donors": layout.config["donors"], "vl-dir": layout.donor_dir("vl"), "llm-dir": layout.donor_dir("llm")}
    options: dict[str, Option] = {"stages": {stage: layout.config[stage] for stage in STAGES}, **donors}
    options |= {"evaluate": layout.config["evaluate"], "num-models": len(layout.models)}
    options["tables"] = {benchmark: layout.questions(benchmark) for benchmark in layout.benchmarks}
    return Step("workflow", {**options, "dataset-checks": [layout.dataset_check(stage) for stage in STAGES]})


# Questions


def questions_fetch_benchmark(layout: Layout, dataset: str) -> Step:
    tsv = layout.fetched_table(dataset)
    checksum = str(Path(tsv).with_suffix(".md5"))
    return Step("evaluate", {"benchmark": dataset, "tsv": tsv, "checksum": checksum})


def questions_fetch_native_benchmark(layout: Layout, dataset: str) -> Step:
    tsv = layout.fetched_table(dataset)
    own_paths = [listed.own_path for listed in layout.benchmarks.values() if listed.dataset == dataset]
    source = {"hub": layout.config["evaluate"]["native"]["hub"], "snapshot-dir": own_paths[0] if own_paths else None}
    return Step("evaluate", {"adapter": dataset, **source, "tsv": tsv, "record": str(Path(tsv).with_suffix(".json"))})


def questions_tabulate_benchmark(layout: Layout, benchmark: str) -> Step:
    own_path = str(layout.benchmarks[benchmark].own_path)
    return Step("workflow", {"source": own_path, "backend": layout.backend, "output": layout.questions(benchmark)})


def questions_check_table(layout: Layout, benchmark: str) -> Step:
    table = {"benchmark-tsv": layout.questions(benchmark), "source": str(layout.benchmarks[benchmark].own_path)}
    seed = layout.config["seed"] if "shuffled" in map(control_of, layout.models) else None
    table |= {"backend": layout.backend, "output": layout.questions_check(benchmark)}
    return Step("workflow", {**table, "shuffled-by-seed": seed})


# Graft


def _donor_dirs(layout: Layout) -> dict[str, Option]:
    return {"vl-dir": layout.donor_dir("vl"), "llm-dir": layout.donor_dir("llm")}


def graft_derive_config(layout: Layout) -> Step:
    options: dict[str, Option] = {**_donor_dirs(layout), "settings": layout.config["graft"]}
    return Step("workflow", {**options, "output": layout.graft_config})


def graft_write_model_files(layout: Layout) -> Step:
    options: dict[str, Option] = {**_donor_dirs(layout), "model-config": layout.graft_config}
    code = {"model-code-dir": shipped("model/qwen2_5_vl_qwen3")}
    return Step("workflow", {**options, **code, "output-dir": layout.model_files_dir})


def graft_calibrate(layout: Layout) -> Step:
    section = layout.config["calibration"]
    # The threshold of the fidelity check does not affect the refit, so another one repeats no fit.
    settings = {key: value for key, value in section.items() if key != "max_kl_nats"}
    settings["text"] = text_path(section["text"])
    options: dict[str, Option] = {
        "llm-dir": layout.donor_dir("llm"),
        "llm-manifest": layout.donor_manifest("llm"),
        "settings": settings,
        "work-dir": f"{layout.work}/calibration",
    }
    return Step("train", {**options, "output": layout.refit, "report": layout.calibration})


def graft_graft(layout: Layout) -> Step:
    manifests = {"vl-manifest": layout.donor_manifest("vl"), "llm-manifest": layout.donor_manifest("llm")}
    return Step(
        "workflow",
        {
            **_donor_dirs(layout),
            **manifests,
            "model-config": layout.graft_config,
            "settings": layout.config["graft"],
            "seed": layout.config["seed"],
            "model-code-dir": shipped("model/qwen2_5_vl_qwen3"),
            "refit": layout.refit if layout.is_refitted else None,
            "calibration": layout.calibration if layout.is_refitted else None,
            "output-dir": layout.graft_dir,
        },
    )


def graft_check_fidelity(layout: Layout) -> Step:
    settings = layout.config["fidelity"] | {"text": text_path(layout.config["fidelity"]["text"])}
    gate: dict[str, Option] = {}
    if layout.is_refitted:
        gate = {"calibration": layout.calibration, "max-kl-nats": layout.config["calibration"]["max_kl_nats"]}
    donor = {"llm-dir": layout.donor_dir("llm"), "llm-manifest": layout.donor_manifest("llm")}
    options = {"graft-dir": layout.graft_dir, **donor, "settings": settings}
    return Step("train", {**options, "output": layout.fidelity, **gate})


# Training


def train_train(layout: Layout, stage: str) -> Step:
    return Step(
        "workflow",
        {
            "stage": stage,
            "model-dir": layout.checkpoint_dir(before(stage)),
            "dataset": layout.dataset(stage),
            "dataset-check": layout.dataset_check(stage),
            "settings": layout.config[stage],
            "seed": layout.config["seed"],
            "work-dir": f"{layout.work}/{stage}",
            "output-dir": layout.result(stage),
            "log": layout.log(stage),
            "train-python": layout.python("train"),
        },
    )


def train_show_status(layout: Layout) -> Step:
    return Step("workflow", {"work-dir": layout.work})


# Evaluation


def _evaluation(layout: Layout, benchmark: str, model: str) -> dict[str, Option]:
    """Options of evaluate and of answer_share."""
    evaluate = layout.config["evaluate"]
    return {
        "model-name": model,
        "model-dir": layout.checkpoint_dir(base_of(model)),
        "manifest": layout.donor_manifest("vl") if base_of(model) == "parent" else None,
        "backend": layout.backend,
        "benchmark": layout.benchmarks[benchmark].dataset,
        "benchmark-tsv": layout.questions(benchmark),
        "control": control_of(model),
        "serve": evaluate["serve"],
        "settings": evaluate[layout.backend],
        "seed": layout.config["seed"],
        "num-seeds": evaluate["num_seeds"],
        "serve-python": layout.python(layout.serve_role),
        "work-dir": f"{layout.work}/eval/{benchmark}/{model}",
    }


def evaluate_check_limits(layout: Layout, benchmark: str) -> Step:
    evaluate = layout.config["evaluate"]
    options: dict[str, Option] = {"settings": evaluate[layout.backend], "serve": evaluate["serve"]}
    options |= {"benchmark-tsv": layout.questions(benchmark), "backend": layout.backend}
    options |= {"model-dir": layout.model_files_dir}
    return Step("train", {**options, "output": layout.result(f"questions/{benchmark}.limits.json")})


def evaluate_answer_share(layout: Layout, benchmark: str, model: str, share: str) -> Step:
    outputs = {
        "output": layout.share(benchmark, model, share),
        "log": layout.evaluation_log(benchmark, model, share),
    }
    return Step("evaluate", {"share": share, **_evaluation(layout, benchmark, model), **outputs})


def evaluate_evaluate(layout: Layout, benchmark: str, model: str) -> Step:
    outputs = {
        "records": layout.records(benchmark, model),
        "provenance": layout.records_provenance(benchmark, model),
        "log": layout.evaluation_log(benchmark, model),
    }
    return Step("evaluate", {**_evaluation(layout, benchmark, model), **outputs})


def evaluate_make_table(layout: Layout, benchmark: str) -> Step:
    inputs = {
        "records": [layout.records(benchmark, model) for model in layout.models],
        "provenances": [layout.records_provenance(benchmark, model) for model in layout.models],
    }
    outputs = {
        "output-csv": layout.scores(benchmark),
        "output-json": layout.scores_provenance(benchmark),
        "output-comparison": layout.comparison(benchmark),
    }
    return Step("workflow", {**inputs, **outputs})


# Report and upload


def report_make_disagreements(layout: Layout, benchmark: str) -> Step:
    return Step(
        "workflow",
        {
            "name": benchmark,
            "benchmark": layout.questions(benchmark),
            "records": [layout.records(benchmark, model) for model in layout.models],
            "output": layout.disagreements(benchmark),
        },
    )


def report_make_report(layout: Layout) -> Step:
    outputs = {"curves-dir": layout.curves_dir, "output": layout.report}
    config = {"effective-config": layout.effective_config, "config-sha256": seal_of(layout.config)}
    return Step("workflow", {**config, **outputs})


def upload_make_model_card(layout: Layout, stage: str) -> Step:
    # The part that a card depends on: another change does not remake it.
    evaluate = {key: layout.config["evaluate"][key] for key in ("backend", "benchmarks")}
    configuration = {key: layout.config[key] for key in ("results", "seed", "donors")}
    return Step("workflow", {"stage": stage, "configuration": {**configuration, "evaluate": evaluate}})


def upload_check_checkpoint(layout: Layout, stage: str) -> Step:
    return Step(
        "workflow",
        {
            "checkpoint-dir": layout.checkpoint_dir(stage),
            "python": layout.python("train"),
            "output": layout.checkpoint_check(stage),
        },
    )


def workflow_save_config(layout: Layout) -> Step:
    return Step("workflow", {"configuration": layout.config, "output": layout.effective_config})


def workflow_summarise_check(layout: Layout) -> Step:
    return Step(
        "workflow",
        {
            "manifests": [layout.donor_manifest(role) for role in ("vl", "llm")],
            "dataset-checks": [layout.dataset_check(stage) for stage in STAGES],
            "questions": [layout.questions_identity(benchmark) for benchmark in layout.benchmarks],
        },
    )


# Serving


def _serving(layout: Layout) -> dict[str, Option]:
    serving = {"serve": layout.config["evaluate"]["serve"], "serve-python": layout.python(layout.serve_role)}
    return {"checkpoint-dir": layout.checkpoint_dir(STAGES[-1]), **serving}


def serve_serve(layout: Layout) -> Step:
    return Step("workflow", _serving(layout))


serve_chat = serve_serve


def serve_app(layout: Layout) -> Step:
    return Step("workflow", {**_serving(layout), "app-python": shipped(".venvs/app/bin/python")})


def step_function(program: str) -> Callable[..., Step] | None:
    """The function of a program (`subject.program`), or None where it has no usual arguments."""
    return globals().get(program.replace(".", "_"))


def selectors(program: str) -> list[str]:
    """What tells the jobs of a program apart: `stage`, `benchmark` …"""
    function = step_function(program)
    return list(inspect.signature(function).parameters)[1:] if function else []


def known_jobs(layout: Layout, selector: str) -> list[str]:
    """What the configuration lets a selector be; empty where the program itself checks it."""
    known = {
        "stage": list(STAGES),
        "role": list(layout.config["donors"]),
        "benchmark": list(layout.benchmarks),
        "model": layout.models,
        "share": [str(share) for share in layout.shares],
    }
    return known.get(selector, [])


def command(layout: Layout, program: str, **chosen: str) -> list[str]:
    """The whole command of one job, as words. Raises UserError when the program has no usual arguments."""
    function = step_function(program)
    if function is None:
        raise UserError(
            f"{program}: has no usual arguments; give its options one by one: python scripts {program} --help"
        )
    for name, value in chosen.items():
        known = known_jobs(layout, name)
        if known and value not in known:
            raise UserError(f"--{name}: {value} found; expected one of {', '.join(known)}")
    step = function(layout, **chosen)
    return [layout.python(step.role), shipped("scripts"), program, *step.arguments()]


def shell_command(layout: Layout, program: str, **chosen: str) -> str:
    """The same, quoted for a shell."""
    return shlex.join(command(layout, program, **chosen))
