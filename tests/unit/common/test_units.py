"""Sizes and durations in words."""

import math

import pytest

from scripts.common.units import duration, size


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (17_740_000_000, "17.74 GB"), (2_500_000_000_000, "2.50 TB")],
)
def test_sizes_are_in_decimal_units(num_bytes: int, text: str) -> None:
    assert size(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.4123, "0.412 s"), (7.43, "7.4 s"), (40, "40 s"), (59.97, "1 min"), (61, "1 min 1 s"),
        (7503, "2 h 5 min"), (3600 * 5, "5 h"), (90061, "1 d 1 h"), (math.inf, "unknown"), (math.nan, "unknown"),
    ],
)  # fmt: skip
def test_durations_are_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
