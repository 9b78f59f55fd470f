"""Makes results/*/eval/<benchmark>.disagreements.html: every question that some models answered right and others wrong.

With pictures, options and answers, to be filtered by model and subject. The page needs nothing from outside itself. Records
that do not belong together, or to the benchmark's file, are refused.

By hand: .venv/bin/python scripts report.make_disagreements --config config/demo.yaml --benchmark digits
"""

import argparse
from pathlib import Path

from scripts.common import units
from scripts.common.errors import run_program
from scripts.common.files import write_text_atomically
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.evaluate.model_names import paths_by_model
from scripts.evaluate.provenance import check_records_unedited, read_provenance
from scripts.evaluate.records import read_records
from scripts.evaluate.same_questions import check_same_questions
from scripts.evaluate.scores import Benchmark
from scripts.report.disagreements import render_disagreements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", required=True, help="of the benchmark, as the page shows it")
    parser.add_argument("--benchmark", required=True, type=Path, help="its TSV, which has the pictures")
    parser.add_argument(
        "--records", required=True, type=Path, nargs="+", help="eval/BENCHMARK/MODEL.jsonl of each model"
    )
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    with owned(arguments.output, inputs=[*arguments.records, arguments.benchmark]):
        paths = paths_by_model(arguments.records, "--records")
        records = {model: read_records(path) for model, path in paths.items()}
        beside = {model: path.with_suffix(".json") for model, path in paths.items()}
        provenances = {model: read_provenance(path) for model, path in beside.items() if path.exists()}
        check_records_unedited({model: paths[model] for model in provenances}, provenances)
        benchmark = Benchmark(arguments.name, arguments.benchmark, Path(), [], records, {})
        check_same_questions(records, paths)
        write_text_atomically(arguments.output, render_disagreements(benchmark))
        log(f"{arguments.output}: {units.size(arguments.output.stat().st_size)}")


if __name__ == "__main__":
    run_program(main)
