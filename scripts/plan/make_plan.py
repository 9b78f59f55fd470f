"""Says what a run takes before anything is spent: rows, steps, hours, memory of a GPU, checkpoints, and what would not fit.

Nothing is fetched, and no GPU is asked. Rows are those that `snakemake check` has counted, donors those that are there; what is
not there yet is assumed, and said so. docs/plan.md has the formulas and how far they are from published trainings.

By hand (also: snakemake plan):
  .venv/bin/python scripts plan.make_plan --config config.yaml
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.settings import settings_from
from scripts.common.units import size
from scripts.plan.evaluation_plan import Asking, benchmark_lines
from scripts.plan.gpus import Gpu, known_gpus
from scripts.plan.hours import MFU_RANGE, hours_of
from scripts.plan.idle_flags import idle_flags
from scripts.plan.memory import GIB, MemoryParts
from scripts.plan.models import PlannedModel, planned_model
from scripts.plan.rows import planned_rows
from scripts.plan.stage_plan import StagePlan, Verdict, bytes_of, plan_stage, remedy, verdict
from scripts.serve.settings import ServeSettings
from scripts.train.settings import StageSettings, torch_dtype

SECONDS_AN_HOUR = 3600


def count(number: float) -> str:
    """1350000000 as `1.35 G`."""
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f}"


def memory_text(parts: MemoryParts) -> str:
    named = {
        "weights": parts.weights,
        "gradients": parts.gradients,
        "optimizer": parts.optimizer,
        "buffers": parts.buffers,
        "activations": parts.activations,
        "logits": parts.logits,
    }
    return (
        f"{parts.total / GIB:.1f} GiB (" + ", ".join(f"{name} {each / GIB:.1f}" for name, each in named.items()) + ")"
    )


def plain(number: float) -> str:
    """Two digits of small numbers, all of others."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def hours_text(hours: tuple[float, float], num_gpus: int) -> str:
    shortest, longest = hours
    if longest * 60 < 1:
        return "less than a minute"
    gpu_hours = f"{plain(shortest * num_gpus)} to {plain(longest * num_gpus)} GPU-hours"
    return f"{plain(shortest)} to {plain(longest)} h, {gpu_hours}"


def stage_lines(plan: StagePlan, settings: StageSettings) -> Iterator[str]:
    """What the stage is, whatever the card."""
    rows = plan.rows
    yield f"{plan.stage}: {count(plan.num_trained)} of {count(plan.num_values)} parameters train"
    yield (
        f"  rows         {rows.num_rows:,} rows, {rows.mean_tokens:.0f} tokens each on average "
        f"({rows.picture_share:.0%} of them pictures), the longest {rows.longest_tokens:.0f}; {rows.origin}"
    )
    yield (
        f"  steps        {plan.num_steps:,} steps with {plan.global_batch} rows each ({plan.num_epochs:.2g} epochs, "
        f"{count(plan.num_tokens_seen)} tokens) in {settings.num_processes} processes"
    )
    again = plan.flop.hardware / plan.flop.model - 1
    yield f"  computation  {plan.flop.model:.2g} FLOP, and {again:.0%} more that is computed again"
    yield f"  memory       average rows: {memory_text(plan.memory_of_median)}"
    yield f"               longest rows: {memory_text(plan.memory_of_longest)}"
    yield (
        f"  checkpoints  {plan.num_checkpoints} of {size(plan.checkpoint_bytes)}; at most {size(plan.peak_disk_bytes)} on the "
        f"disk at once, {size(plan.written_bytes)} written in all"
    )


def card_line(plan: StagePlan, settings: StageSettings, planned: PlannedModel, dtype: str, gpu: Gpu) -> str:
    """Whether the stage fits a card, what would make it fit, and how long it takes there."""
    found = verdict(plan, gpu.memory_gib)
    hours = hours_text(hours_of(plan.flop.model, settings.num_processes, gpu.peak_tflop_s), settings.num_processes)
    text = f"  {gpu.name:12} {hours}; {found.value}"
    if found is not Verdict.FITS:
        way_out = remedy(plan.stage, settings, planned.model, plan.rows, dtype, gpu.memory_gib)
        text += f"; would fit with {way_out}" if way_out else "; nothing that keeps the batch makes it fit"
    return text


def job_line(plan: StagePlan, settings: StageSettings, gpus: Sequence[Gpu], walltime_min: int, signal_s: int) -> str:
    """How many jobs of a walltime a stage takes, and how fast the disk must be for a checkpoint in time."""
    usable_h = walltime_min / 60 - signal_s / SECONDS_AN_HOUR
    if usable_h <= 0:
        return f"  jobs         none: SLURM_SIGNAL_S {signal_s} leaves nothing of {walltime_min} min; raise SLURM_RUNTIME_TRAIN"
    longest = max(hours_of(plan.flop.model, settings.num_processes, gpu.peak_tflop_s)[1] for gpu in gpus)
    num_jobs = max(1, -(-longest // usable_h))
    return (
        f"  jobs         up to {num_jobs:.0f} jobs of {walltime_min} min; to write a checkpoint in the {signal_s} s before a job "
        f"ends (SLURM_SIGNAL_S), the disk must take {size(int(plan.checkpoint_bytes / signal_s))} a second"
    )


def chosen_gpus(wanted: str | None) -> list[Gpu]:
    """All, or those whose key is part of Slurm's name of a type. Raises UserError where none is."""
    known = known_gpus()
    if wanted is None:
        return list(known.values())
    asked = wanted.lower().replace("-", "_")
    found = [gpu for key, gpu in known.items() if all(part in asked for part in key.split("_"))]
    if not found:
        raise UserError(f"--gpu: {wanted} found; expected one of {', '.join(known)}; add it to config/gpus.yaml")
    return found


def plan_lines(
    stages: Mapping[str, Mapping[str, Any]], checks: Sequence[Path], planned: PlannedModel,
    gpus: Sequence[Gpu], limits: Mapping[str, tuple[int, int]],
) -> Iterator[str]:  # fmt: skip
    yield f"model: {count(planned.model.num_parameters)} parameters, {planned.dtype}; " + "; ".join(planned.origins)
    for (stage, section), check_path in zip(stages.items(), checks, strict=True):
        settings = settings_from(StageSettings, section, stage)
        dtype = torch_dtype(stage, settings, {"dtype": planned.dtype})
        limit = settings.flags.get("max_length")
        rows = planned_rows(settings.datasets, check_path, limit if isinstance(limit, int) else None)
        plan = plan_stage(stage, settings, planned.model, rows, dtype)
        yield ""
        yield from stage_lines(plan, settings)
        if rows.num_rows < plan.global_batch:
            yield f"  note         fewer rows than a step takes ({plan.global_batch}): an epoch is one step, and trains little"
        if stage in limits:
            yield job_line(plan, settings, gpus, *limits[stage])
        yield from (card_line(plan, settings, planned, dtype, gpu) for gpu in gpus)
        yield from (f"  no effect    {line}" for line in idle_flags(stage, settings))
    yield ""
    yield (
        f"hours: at {MFU_RANGE[0]:.0%} to {MFU_RANGE[1]:.0%} of the cards' peak, without waiting, checkpoints and checks; see "
        "docs/plan.md"
    )


def evaluation_lines(
    evaluate: Mapping[str, Any], num_models: int, tables: Mapping[str, Path], planned: PlannedModel, gpus: Sequence[Gpu]
) -> Iterator[str]:
    """Of each benchmark; every replica on every node is a server."""
    serve = settings_from(ServeSettings, evaluate["serve"], "evaluate.serve")
    backend = evaluate[evaluate["backend"]]
    asking = Asking(
        num_models=num_models,
        num_seeds=evaluate["num_seeds"],
        num_under_way=backend["nproc" if evaluate["backend"] == "vlmevalkit" else "batch_size"],
        max_tokens=backend["max_tokens"],
        num_servers=serve.num_replicas * serve.num_nodes,
        gpus_a_server=int(serve.flags.get("vllm_tensor_parallel_size", 1)),
    )
    for name, table_path in tables.items():
        yield ""
        yield from benchmark_lines(name, table_path, asking, planned.model, bytes_of(planned.dtype), gpus)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=json.loads, required=True, help="both sections of the configuration, as JSON")
    parser.add_argument("--donors", type=json.loads, required=True, help="the section `donors`, as JSON")
    parser.add_argument("--vl-dir", type=Path, required=True)
    parser.add_argument("--llm-dir", type=Path, required=True)
    parser.add_argument(
        "--dataset-checks", type=Path, nargs="+", required=True, help="of both stages, where they are made"
    )
    parser.add_argument("--evaluate", type=json.loads, required=True, help="the section `evaluate`, as JSON")
    parser.add_argument("--num-models", type=int, required=True, help="rows of a table, controls among them")
    parser.add_argument("--tables", type=json.loads, required=True, help="tables of questions by benchmark, as JSON")
    parser.add_argument("--gpu", help="a key of config/gpus.yaml, or Slurm's name of a type; else all")
    parser.add_argument(
        "--limits", type=json.loads, default={}, help="walltime in minutes and SLURM_SIGNAL_S, by stage"
    )
    arguments = parser.parse_args()
    planned = planned_model(arguments.donors, {"vl": arguments.vl_dir, "llm": arguments.llm_dir})
    gpus = chosen_gpus(arguments.gpu)
    tables = {name: Path(path) for name, path in arguments.tables.items()}
    lines = plan_lines(arguments.stages, arguments.dataset_checks, planned, gpus, arguments.limits)
    asked = evaluation_lines(arguments.evaluate, arguments.num_models, tables, planned, gpus)
    print("\n".join([*lines, *asked]))


if __name__ == "__main__":
    run_program(main)
