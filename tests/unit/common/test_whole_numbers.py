"""A number of an option is refused by the option's name where it cannot work."""

import argparse

import pytest

from scripts.common.whole_numbers import MAX_SEED, seed_number, whole_number


def test_both_bounds_are_taken() -> None:
    assert [whole_number(1, 8)(text) for text in ("1", "8", "08")] == [1, 8, 8]
    assert seed_number(str(MAX_SEED)) == MAX_SEED


@pytest.mark.parametrize("text", ["0", "9", "-3", "+1", "1.0", "1e0", "", " 1", "1_0", "٣", "1" * 5000])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 1 to 8"):
        whole_number(1, 8)(text)


def test_a_seed_that_numpy_would_not_take_is_refused() -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match="'4294967296' found; expected a whole number from 0 to 4294967295"
    ):
        seed_number("4294967296")
