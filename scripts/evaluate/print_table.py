"""Prints the overall rows of a score table for people: model, split, accuracy with its 95 % interval, what went wrong.

By hand: .venv/bin/python scripts evaluate.print_table results/demo/eval/digits.csv
"""

import argparse
from pathlib import Path

import pandas

from scripts.common.errors import UserError, run_program


def overall_table(csv_path: Path) -> str:
    """The rows of group `overall`, as aligned text; raises UserError when the table is absent or has other columns."""
    if not csv_path.exists():
        raise UserError(f"{csv_path}: not found; expected a score table; make it with snakemake {csv_path}")
    table = pandas.read_csv(csv_path)
    try:
        overall = table[table["group"] == "overall"]
        shown = pandas.DataFrame(
            {
                "model": overall["model"],
                "split": overall["split"],
                "questions": overall["num_questions"],
                "seeds": overall["num_seeds"],
                "correct": overall["num_correct"],
                "metric": overall["metric"],
                "value": overall["accuracy"].map("{:.3f}".format),
                "95 % interval": [
                    f"{low:.3f}–{high:.3f}" for low, high in zip(overall["ci95_low"], overall["ci95_high"], strict=True)
                ],
                "unparsed": overall["num_unparsed"],
                "truncated": overall["num_truncated"],
            }
        )
    except KeyError as error:
        raise UserError(f"{csv_path}: column {error} not found; expected a table made by make_table.py") from None
    return shown.to_string(index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("csv", type=Path)
    print(overall_table(parser.parse_args().csv))


if __name__ == "__main__":
    run_program(main)
