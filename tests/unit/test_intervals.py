"""The 95 % interval of a score."""

import pytest

from common.intervals import wilson_interval


# Expected values from scipy 1.17.1: binomtest(k, n).proportion_ci(method="wilson").
@pytest.mark.parametrize(
    ("num_correct", "num_questions", "low", "high"),
    [
        (0, 10, 0.0, 0.27753279986288926),
        (10, 10, 0.7224672001371106, 1.0),
        (5, 10, 0.236593090512564, 0.7634069094874361),
        (81, 263, 0.2552885198782742, 0.36620957698280004),
    ],
)
def test_the_interval_is_wilsons(num_correct: int, num_questions: int, low: float, high: float) -> None:
    assert wilson_interval(num_correct, num_questions) == pytest.approx((low, high), abs=1e-12)


def test_the_interval_never_leaves_the_range_of_a_share() -> None:
    for num_questions in range(1, 50):
        assert wilson_interval(0, num_questions)[0] >= 0.0
        assert wilson_interval(num_questions, num_questions)[1] <= 1.0
