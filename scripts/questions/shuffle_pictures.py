"""Writes the shuffled control of a benchmark: each question with the picture of another one, to be looked at.

`evaluate.py --control shuffled` asks the same: both use controls.py.

By hand:
  .venv/bin/python scripts questions.shuffle_pictures --benchmark-tsv resources/data/digits/test.tsv --seed 0 \
    --output work/shuffled.tsv
"""

import argparse
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.whole_numbers import seed_number
from scripts.questions.controls import with_shuffled_pictures
from scripts.questions.tables import read_benchmark, write_benchmark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--seed", type=seed_number, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    table = read_benchmark(arguments.benchmark_tsv)
    write_benchmark(with_shuffled_pictures(table, arguments.benchmark_tsv, arguments.seed), arguments.output)


if __name__ == "__main__":
    run_program(main)
