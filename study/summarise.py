"""Makes the study's table of all runs, its summary for people and its figure.

By hand (the configuration of study/config.yaml as JSON):
  .venv/bin/python -m study.summarise --config '{"results": "results/study", …}' --results-dir results/study \
    --csv study.csv --tables study.md --figure study.svg
"""

import argparse
import json
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.files import write_text_atomically
from study.figure import figure_svg
from study.outcomes import csv_text, read_outcomes
from study.tables import markdown


def main() -> None:
    """Reads the arguments and writes the three files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--config", required=True, type=json.loads, help="the whole configuration as JSON")
    parser.add_argument("--results-dir", required=True, type=Path)
    parser.add_argument("--csv", required=True, type=Path, help="a row for each run and model")
    parser.add_argument("--tables", required=True, type=Path)
    parser.add_argument("--figure", required=True, type=Path)
    arguments = parser.parse_args()
    config, results_dir = arguments.config, arguments.results_dir
    outcomes = read_outcomes(config, results_dir)
    write_text_atomically(arguments.csv, csv_text(outcomes.rows))
    write_text_atomically(arguments.tables, markdown(config, results_dir, outcomes))
    write_text_atomically(arguments.figure, figure_svg(config, results_dir, outcomes))


if __name__ == "__main__":
    run_program(main)
