"""Makes results/*/eval/<benchmark>.disagreements.html: every question that some models answered right and others wrong.

A score says how often; this page shows at what: right by the parent and wrong by ours, and back, with pictures, options and
answers, to be filtered by model and subject. It needs nothing from outside itself. Records that do not belong together,
or to the benchmark's file, are refused.

By hand, for the demo:
  .venv/bin/python scripts report.make_disagreements --name digits --benchmark resources/data/digits/test.tsv \
    --records results/demo/eval/digits/{graft,stage1,stage2}.jsonl --output results/demo/eval/digits.disagreements.html
"""

import argparse
import sys
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.files import write_text_atomically
from scripts.evaluate.model_names import pipeline_order
from scripts.evaluate.records import read_records
from scripts.evaluate.same_questions import check_same_questions
from scripts.evaluate.scores import Benchmark
from scripts.report.disagreements import render_disagreements


def main() -> None:
    """Reads the arguments and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", required=True, help="of the benchmark, as the page shows it")
    parser.add_argument("--benchmark", required=True, type=Path, help="its TSV, which has the pictures")
    parser.add_argument("--records", required=True, type=Path, nargs="+", help="MODEL.jsonl of evaluate.py")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    paths = {path.stem: path for path in sorted(arguments.records, key=lambda path: pipeline_order(path.stem))}
    records = {model: read_records(path) for model, path in paths.items()}
    benchmark = Benchmark(arguments.name, arguments.benchmark, Path(), [], records, {})
    check_same_questions(records, paths)
    write_text_atomically(arguments.output, render_disagreements(benchmark))
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
