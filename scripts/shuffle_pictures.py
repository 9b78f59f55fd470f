"""Writes a control: the same questions, options and answers, but each with the picture of another question.

A model that looks at pictures falls to chance on it; one that reads the answer off the text does not. Pictures change
places within their split, none stays, and where the pictures allow it no question gets an identical one.
`evaluate.py --control shuffled` does the same to the benchmark that it asks.

By hand:
  .venvs/evaluate/bin/python scripts/shuffle_pictures.py --benchmark-tsv resources/data/digits/test.tsv --seed 0 \
    --output work/shuffled.tsv
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas

from common.benchmark_tables import picture_field, picture_sha256, pictures_of, read_benchmark, write_benchmark
from common.errors import UserError, run_program


def deranged(contents: Sequence[str], rng: random.Random) -> list[int]:
    """For each position the position whose content it gets: never its own, never an equal content if that can be.

    Equal contents stand side by side in a random order of all; a turn by the size of the largest such group takes each
    out of its group, unless that group is more than half of all.
    """
    group_rank = {content: rng.random() for content in dict.fromkeys(contents)}
    order = list(range(len(contents)))
    rng.shuffle(order)
    order.sort(key=lambda position: group_rank[contents[position]])
    turn = max(Counter(contents).values(), default=0)
    if turn == len(contents):
        turn = 1
    source = [0] * len(contents)
    for place, position in enumerate(order):
        source[position] = order[(place + turn) % len(order)]
    return source


def with_shuffled_pictures(table: pandas.DataFrame, path: Path, seed: int) -> pandas.DataFrame:
    """A copy of the table with pictures deranged within each split; raises UserError when a split has one question.

    A question keeps its number of pictures (its text may name them): of a question with fewer, some come twice. One that
    has none takes no part.
    """
    pictures = pictures_of(table, path)
    contents = [picture_sha256(each) for each in pictures]
    splits = list(table["split"]) if "split" in table else ["all"] * len(table)
    images = [""] * len(table)
    rng = random.Random(seed)
    for split in sorted(set(splits)):
        rows = [row for row, row_split in enumerate(splits) if row_split == split and pictures[row]]
        if len(rows) == 1:
            raise UserError(
                f"{path}: split {split!r} has one question with a picture, so it cannot be exchanged; evaluate without the "
                "shuffled control or add questions"
            )
        sources = deranged([contents[row] for row in rows], rng)
        for row, source in zip(rows, sources, strict=True):
            others = pictures[rows[source]]
            taken = [others[number % len(others)] for number in range(len(pictures[row]))]
            images[row] = picture_field(taken)
    return table.assign(image=images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    table = read_benchmark(arguments.benchmark_tsv)
    write_benchmark(with_shuffled_pictures(table, arguments.benchmark_tsv, arguments.seed), arguments.output)


if __name__ == "__main__":
    run_program(main)
