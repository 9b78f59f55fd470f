"""Makes the study's table of all runs, its summary for people and its figure.

By hand (the configuration of study/config.yaml as JSON):
  .venv/bin/python study/summarise.py --config '{"results": "results/study", …}' --results-dir results/study \
    --csv study.csv --tables study.md --figure study.svg
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from common.errors import run_program
from common.files import write_text_atomically
from figure import figure_svg
from outcomes import csv_text, read_outcomes
from tables import markdown


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
