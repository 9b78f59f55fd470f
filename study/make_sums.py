"""Makes the study's training and test questions: two handwritten digits each, and what their sum, difference or product is.

Some calculations never come with pictures in training: there the model can only use what its language model brought. The
test asks equally many of both kinds, about test scans alone. All arms of the study train on the same rows.

Written are train.jsonl and test.jsonl, in ms-swift's form with absolute picture paths; test rows also have `operation`,
`is_trained` (whether the calculation comes in training) and `answer`.

By hand (the settings are those of study/config.yaml, `sums`):
  .venvs/train/bin/python -m study.make_sums --digits-dir resources/study/digits --output-dir resources/study/sums \
    --settings '{"num_train": 4800, "num_test": 600, "num_untrained_calculations": 60, "seed": 20261125}'
"""

import argparse
import csv
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.settings import json_settings
from scripts.demo.whole_directory import whole_directory
from study.sums import ALL_CALCULATIONS, Calculation

OUTPUT_NAMES = {"train.jsonl", "test.jsonl"}
PicturesOfDigit = Mapping[int, Sequence[Path]]


def read_pictures(digits_dir: Path) -> Mapping[str, PicturesOfDigit]:
    """Absolute picture paths by split and digit."""
    pictures: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    with (digits_dir / "pictures.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            pictures[row["split"]][int(row["digit"])].append((digits_dir / row["path"]).absolute())
    return pictures


def split_calculations(num_untrained: int, seed: int) -> tuple[list[Calculation], list[Calculation]]:
    """The calculations that training shows, and those that it never shows."""
    if not 0 < num_untrained < len(ALL_CALCULATIONS):
        raise UserError(
            f"sums.num_untrained_calculations: {num_untrained} found; expected 1 to {len(ALL_CALCULATIONS) - 1} of the "
            f"{len(ALL_CALCULATIONS)} calculations that there are"
        )
    order = list(ALL_CALCULATIONS)
    random.Random(seed).shuffle(order)
    return order[num_untrained:], order[:num_untrained]


def row_of(calculation: Calculation, pictures: PicturesOfDigit, rng: random.Random) -> dict[str, Any]:
    """One question about two pictures drawn at random."""
    paths = [rng.choice(pictures[digit]) for digit in (calculation.first, calculation.second)]
    return {
        "messages": [
            {"role": "user", "content": "<image>" * len(paths) + calculation.question_about_pictures},
            {"role": "assistant", "content": calculation.answer},
        ],
        "images": [str(path) for path in paths],
    }


def test_row(
    calculation: Calculation, is_trained: bool, pictures: PicturesOfDigit, rng: random.Random
) -> dict[str, Any]:
    """A question with what the table groups it by."""
    described = {"operation": calculation.operation, "is_trained": is_trained, "answer": calculation.answer}
    return row_of(calculation, pictures, rng) | described


@dataclass(frozen=True)
class SumsSettings:
    """The section `sums` of the study."""

    num_train: int
    num_test: int
    num_untrained_calculations: int
    seed: int


def make_sums(digits_dir: Path, settings: SumsSettings, directory: Path) -> None:
    """Writes both files into `directory`."""
    trained, untrained = split_calculations(settings.num_untrained_calculations, settings.seed)
    pictures = read_pictures(digits_dir)
    rng = random.Random(f"{settings.seed}:train")
    train = [row_of(rng.choice(trained), pictures["train"], rng) for _ in range(settings.num_train)]
    rng = random.Random(f"{settings.seed}:test")
    kinds = [number % 2 == 0 for number in range(settings.num_test)]
    test = [test_row(rng.choice(trained if kind else untrained), kind, pictures["test"], rng) for kind in kinds]
    for name, rows in (("train", train), ("test", test)):
        lines = [json.dumps(row) + "\n" for row in rows]
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Reads the arguments and makes the questions."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--digits-dir", required=True, type=Path, help="what scripts/demo/make_digits.py wrote")
    parser.add_argument(
        "--settings", required=True, type=json_settings(SumsSettings, "sums"), help="the study's section `sums` as JSON"
    )
    parser.add_argument("--output-dir", required=True, type=Path)
    arguments = parser.parse_args()
    with whole_directory(arguments.output_dir, OUTPUT_NAMES) as directory:
        make_sums(arguments.digits_dir, arguments.settings, directory)


if __name__ == "__main__":
    run_program(main)
