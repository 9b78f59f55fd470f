"""For argparse's `type`: whole numbers within bounds, so that a number that cannot work is refused by its option's name."""

import argparse
from collections.abc import Callable

MAX_SEED = 2**32 - 1  # what numpy takes; torch takes more


def whole_number(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} found; expected a whole number from {least} to {most}")
        return int(text)

    return parse


seed_number = whole_number(0, MAX_SEED)
