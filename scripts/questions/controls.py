"""The shuffled control: the same questions, options and answers, but each with the picture of another question.

A model that looks at pictures falls to chance on it; one that reads the answer off the text does not. Pictures are exchanged
within their split, none stays, and where the pictures allow it no question gets an identical one.
"""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas

from scripts.common.errors import UserError
from scripts.questions.pictures import picture_field, picture_sha256, pictures_of


def deranged(contents: Sequence[str], rng: random.Random) -> list[int]:
    """For each position, the position whose content it gets: never its own, and no equal content where that is possible.

    All positions are put in a random order in which equal contents stand side by side. Each then gets the content that
    stands as many places further as the largest group of equals has members. That lies outside its own group, unless the
    group is more than half of all.
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
    """A copy of the table with the pictures exchanged within each split; raises UserError when a split has one question.

    A question keeps its number of pictures, since its text may name them: where it gets those of a question with fewer,
    some come twice. A question without a picture is left as it is.
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
