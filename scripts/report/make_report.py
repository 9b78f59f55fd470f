"""Makes results/*/report.html: one page that shows and explains what a run did, and needs nothing from outside itself.

The page holds the score tables with their intervals, the loss curves, how faithful the graft is, a gallery of test
pictures with every model's answer, and where everything came from. Its inputs are named one by one, so that Snakemake
knows when it is stale. Inputs that contradict each other are refused: a page that mixes two runs is worse than none.
The same inputs, with the same times of change, give the same bytes; the date on the page is that of the newest input.

By hand, for the demo (the options that take several values may also be repeated):
  .venv/bin/python scripts report.make_report --title results/demo --commit "$(git describe --always --dirty --abbrev=40)" \
    --config results/demo/config.json \
    --metrics stage1=results/demo/stage1/metrics.json stage2=results/demo/stage2/metrics.json \
    --ledger results/demo/graft/ledger.tsv --fidelity results/demo/graft/fidelity.json \
    --benchmark digits=resources/data/digits/test.tsv --scores digits=results/demo/eval/digits.csv \
    --score-provenance digits=results/demo/eval/digits.json \
    --records digits:graft=results/demo/eval/digits/graft.jsonl digits:stage2=results/demo/eval/digits/stage2.jsonl \
    --donor resources/donors/demo-vl-seed0.json resources/donors/demo-llm-seed0.json \
    --dataset-check stage1=results/demo/data/stage1.check.json stage2=results/demo/data/stage2.check.json \
    --lock envs/train.lock envs/evaluate.lock envs/workflow.lock --time graft=results/demo/times/graft.tsv \
    --num-gallery-pictures 24 --output results/demo/report.html
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.common.commit import current_commit
from scripts.common.errors import UserError, run_program
from scripts.common.files import read_json, sha256_of_file, write_text_atomically
from scripts.data.fingerprint import read_dataset_check
from scripts.donors.manifest import read_manifest
from scripts.evaluate.model_names import pipeline_order
from scripts.evaluate.records import read_records
from scripts.evaluate.same_questions import check_same_questions
from scripts.evaluate.scores import Benchmark, check_provenance, check_same_weights, read_scores
from scripts.graft.fidelity import read_fidelity
from scripts.graft.ledger import read_ledger
from scripts.report.checks import check_records_against_scores, check_same_benchmark
from scripts.report.page import Inputs, render
from scripts.report.provenance import md5_of_file, read_config, read_lock, read_step_time
from scripts.train.metrics import Metrics, check_metrics, read_metrics

# A page that is passed around by mail or kept by the hundred should stay below this.
MAX_PAGE_BYTES = 3_000_000


def named_path(text: str) -> tuple[str, Path]:
    """`NAME=PATH`, the form of options that say which of several a file is."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r} found; expected NAME=PATH")
    return name, Path(path)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--title", required=True, help="name of the run")
    parser.add_argument("--effective-config", required=True, type=Path, help="effective config, JSON or YAML")
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    parser.add_argument("--metrics", **several, default=[], type=named_path, metavar="STAGE=FILE")
    parser.add_argument("--ledger", required=True, type=Path)
    parser.add_argument("--fidelity", required=True, type=Path)
    parser.add_argument("--benchmark", **several, required=True, type=named_path, metavar="NAME=TSV")
    parser.add_argument("--scores", **several, required=True, type=named_path, metavar="NAME=CSV")
    parser.add_argument("--score-provenance", **several, required=True, type=named_path, metavar="NAME=JSON")
    parser.add_argument("--records", **several, required=True, type=named_path, metavar="NAME:MODEL=JSONL")
    parser.add_argument("--donor", **several, default=[], type=Path, metavar="FILE")
    parser.add_argument("--dataset-check", **several, default=[], type=named_path, metavar="STAGE=FILE")
    parser.add_argument("--lock", **several, default=[], type=Path, metavar="FILE")
    parser.add_argument(
        "--time", **several, default=[], type=named_path, metavar="STEP=FILE", help="Snakemake's benchmark"
    )
    parser.add_argument("--num-gallery-pictures", required=True, type=int, help="per benchmark")
    parser.add_argument("--output", required=True, type=Path)
    return parser.parse_args(arguments)


def by_name(option: str, pairs: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """The paths by name; UserError when a name is given twice."""
    found: dict[str, Path] = {}
    for name, path in pairs:
        if name in found:
            raise UserError(f"{option} {name}: given twice ({found[name]} and {path}); expected once; leave one out")
        found[name] = path
    return found


def read_benchmark(
    name: str, arguments: argparse.Namespace, record_paths: dict[str, Path], stages: Sequence[Metrics]
) -> Benchmark:
    """One benchmark's files, checked against each other."""
    paths = {
        option: by_name(f"--{option.replace('_', '-')}", getattr(arguments, option)).get(name)
        for option in ("benchmark", "scores", "score_provenance")
    }
    for option, path in paths.items():
        if path is None:
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"{flag} {name}: not given; expected a file for each benchmark; add {flag} {name}=FILE")
    tsv_path, scores_path, provenance_path = (Path(str(path)) for path in paths.values())
    if not record_paths:
        raise UserError(f"--records {name}: not given; expected one file a model; add --records {name}:MODEL=FILE")
    if not tsv_path.exists():
        raise UserError(f"{tsv_path}: not found; expected the benchmark's table; run the rule that makes it")
    models = sorted(record_paths, key=pipeline_order)
    benchmark = Benchmark(
        name=name,
        tsv_path=tsv_path,
        scores_path=scores_path,
        scores=read_scores(scores_path),
        records={model: read_records(record_paths[model]) for model in models},
        provenance=check_provenance(read_json(provenance_path), models, provenance_path),
    )
    check_records_against_scores(benchmark, record_paths)
    check_same_questions(benchmark, record_paths)
    check_same_benchmark(benchmark, md5_of_file(tsv_path), provenance_path)
    check_same_weights(benchmark, stages, provenance_path)
    return benchmark


def newest_change(paths: Iterable[Path]) -> str:
    """When the newest of the files was changed, in UTC."""
    newest = max(path.stat().st_mtime for path in paths)
    return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")


def gather(arguments: argparse.Namespace) -> Inputs:
    """Reads and checks every input."""
    metrics_paths = by_name("--metrics", arguments.metrics)
    dataset_paths = by_name("--dataset-check", arguments.dataset_check)
    record_paths: dict[str, dict[str, Path]] = {}
    for key, path in by_name("--records", arguments.records).items():
        benchmark_name, separator, model = key.partition(":")
        if not (benchmark_name and separator and model):
            raise UserError(f"--records {key}={path}: expected NAME:MODEL=FILE; add the model's name")
        record_paths.setdefault(benchmark_name, {})[model] = path
    tsv_paths = by_name("--benchmark", arguments.benchmark)
    if unknown := sorted(record_paths.keys() - tsv_paths.keys()):
        raise UserError(f"--records {unknown[0]}: no such benchmark was given; add --benchmark {unknown[0]}=TSV")
    if arguments.num_gallery_pictures < 0:
        raise UserError(f"--num-gallery-pictures: {arguments.num_gallery_pictures} found; expected 0 or more")

    stages = [read_metrics(stage, path) for stage, path in metrics_paths.items()]
    for metrics in stages:
        check_metrics(metrics, metrics_paths[metrics.stage])
    commit = current_commit()
    inputs = Inputs(
        title=arguments.title,
        commit=commit.name,
        is_dirty=commit.is_dirty,
        newest_input="",
        config=read_config(arguments.effective_config),
        stages=stages,
        fidelity=read_fidelity(arguments.fidelity),
        ledger=read_ledger(arguments.ledger),
        benchmarks=[read_benchmark(name, arguments, record_paths.get(name, {}), stages) for name in tsv_paths],
        benchmark_md5s={name: md5_of_file(path) for name, path in tsv_paths.items()},
        benchmark_sha256s={name: sha256_of_file(path) for name, path in tsv_paths.items()},
        donors=[read_manifest(path) for path in arguments.donor],
        datasets=[read_dataset_check(stage, path) for stage, path in dataset_paths.items()],
        locks=[read_lock(path) for path in arguments.lock],
        step_times_s={step: read_step_time(path) for step, path in by_name("--time", arguments.time).items()},
        num_gallery_pictures=arguments.num_gallery_pictures,
    )
    read_paths = [arguments.effective_config, arguments.ledger, arguments.fidelity, *arguments.donor, *arguments.lock]
    for option in ("metrics", "dataset_check", "benchmark", "scores", "score_provenance", "records", "time"):
        read_paths += [path for _, path in getattr(arguments, option)]
    return replace(inputs, newest_input=newest_change(read_paths))


def main() -> None:
    """Reads the arguments, makes the page and writes it, whole or not at all."""
    arguments = parse_arguments()
    page = render(gather(arguments))
    num_bytes = len(page.encode())
    if num_bytes > MAX_PAGE_BYTES:
        raise UserError(
            f"{arguments.output}: the page would have {num_bytes:,} bytes; expected at most {MAX_PAGE_BYTES:,}; "
            "lower report.num_gallery_pictures"
        )
    write_text_atomically(arguments.output, page)
    print(f"{arguments.output}: {num_bytes / 1000:,.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
