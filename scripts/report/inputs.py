"""All that the report is made from, read and checked.

Every path comes from the run's configuration (scripts/workflow/layout.py). Files that contradict each other are refused:
a page that mixes two runs is worse than none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.common.files import md5_of_file, sha256_of_file
from scripts.common.input_files import require_file
from scripts.data.dataset_check import DatasetCheck, read_dataset_check
from scripts.donors.manifest import DonorManifest, read_manifest_of
from scripts.evaluate.model_names import pipeline_order
from scripts.evaluate.provenance import check_records_unedited, read_table_provenance
from scripts.evaluate.records import read_records
from scripts.evaluate.same_questions import check_same_questions
from scripts.evaluate.scores import Benchmark, check_same_weights, read_scores
from scripts.graft.fidelity import Fidelity
from scripts.graft.ledger import LedgerSum, sum_ledger
from scripts.graft.verification import read_proven
from scripts.report.checks import check_records_against_scores, check_same_benchmark
from scripts.report.commit import Commit
from scripts.report.provenance import Lock, read_config, read_lock, read_step_time
from scripts.report.settings import ReportSettings
from scripts.train.metrics import Metrics, read_metrics
from scripts.workflow.layout import STAGES, Layout

DONOR_ROLES = ("vl", "llm")


@dataclass(frozen=True)
class Inputs:
    """One run, as its files describe it."""

    title: str
    commit: Commit
    newest_input: str
    config: dict[str, Any]
    settings: ReportSettings
    stages: list[Metrics]
    fidelity: Fidelity
    ledger: list[LedgerSum]
    benchmarks: list[Benchmark]
    benchmark_md5s: dict[str, str]
    benchmark_sha256s: dict[str, str]
    donors: list[DonorManifest]
    datasets: dict[str, DatasetCheck]
    locks: list[Lock]
    step_times_s: dict[str, float]


def read_benchmark(layout: Layout, name: str, stages: Sequence[Metrics], graft_sha256: str) -> Benchmark:
    """One benchmark's files, checked against each other."""
    tsv_path, scores_path = Path(layout.questions(name)), Path(layout.scores(name))
    provenance_path = Path(layout.scores_provenance(name))
    record_paths = {model: Path(layout.records(name, model)) for model in sorted(layout.models, key=pipeline_order)}
    require_file(tsv_path, "the benchmark's table", "run the rule that makes it")
    benchmark = Benchmark(
        name=name,
        tsv_path=tsv_path,
        scores_path=scores_path,
        scores=read_scores(scores_path),
        records={model: read_records(path) for model, path in record_paths.items()},
        provenance=read_table_provenance(provenance_path, list(record_paths), scores_path),
    )
    check_records_against_scores(benchmark, record_paths)
    check_same_questions(benchmark.records, record_paths)
    check_same_benchmark(benchmark, md5_of_file(tsv_path), provenance_path)
    made = {each.stage: each.checkpoint_sha256 for each in stages} | {"graft": graft_sha256}
    check_same_weights(benchmark, made, provenance_path)
    check_records_unedited(record_paths, benchmark.provenance)
    return benchmark


def read_stages(layout: Layout) -> list[Metrics]:
    """The metrics of each stage."""
    stages = []
    for stage in STAGES:
        path = Path(layout.metrics(stage))
        metrics = read_metrics(stage, path)
        stages.append(metrics)
    return stages


def input_paths(layout: Layout) -> list[str]:
    """Every file that a page is made from, but the configuration."""
    names = layout.benchmarks
    return [
        layout.ledger,
        layout.fidelity,
        *map(layout.metrics, STAGES),
        *map(layout.dataset_check, STAGES),
        *map(layout.donor_manifest, DONOR_ROLES),
        *map(layout.questions, names),
        *map(layout.scores, names),
        *map(layout.scores_provenance, names),
        *(layout.records(name, model) for name in names for model in layout.models),
        *layout.locks,
        *layout.step_times.values(),
    ]


def newest_change(paths: Iterable[Path]) -> str:
    """When the newest of the files was changed, in UTC."""
    newest = max(path.stat().st_mtime for path in paths)
    return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")


def read_inputs(config_path: Path, commit: Commit) -> Inputs:
    """Reads and checks the files of the run that a configuration describes. Raises UserError naming the file."""
    config = read_config(config_path)
    layout = Layout(config)
    stages = read_stages(layout)
    fidelity, ledger_rows = read_proven(Path(layout.fidelity), Path(layout.ledger))
    tsv_paths = {name: Path(layout.questions(name)) for name in layout.benchmarks}
    return Inputs(
        title=layout.results,
        commit=commit,
        config=config,
        settings=ReportSettings.of(config),
        stages=stages,
        fidelity=fidelity,
        ledger=sum_ledger(ledger_rows),
        benchmarks=[read_benchmark(layout, name, stages, fidelity.graft_sha256) for name in layout.benchmarks],
        benchmark_md5s={name: md5_of_file(path) for name, path in tsv_paths.items()},
        benchmark_sha256s={name: sha256_of_file(path) for name, path in tsv_paths.items()},
        donors=[read_manifest_of(role, Path(layout.donor_manifest(role))) for role in DONOR_ROLES],
        datasets={stage: read_dataset_check(Path(layout.dataset_check(stage))) for stage in STAGES},
        locks=[read_lock(Path(path)) for path in layout.locks],
        step_times_s={step: read_step_time(Path(path)) for step, path in layout.step_times.items()},
        newest_input=newest_change([config_path, *map(Path, input_paths(layout))]),
    )
