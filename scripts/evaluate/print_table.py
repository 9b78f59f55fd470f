"""Prints the overall rows of a score table: model, split, accuracy with its 95 % interval, what went wrong.

By hand: .venv/bin/python scripts evaluate.print_table results/demo/eval/digits.csv
"""

import argparse
from pathlib import Path

from scripts.common.errors import run_program
from scripts.evaluate.scores import overall_table, read_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", type=Path)
    print(overall_table(read_scores(parser.parse_args().csv)))


if __name__ == "__main__":
    run_program(main)
