"""The 95 % interval of a score."""

import math
import random

import pytest

from scripts.evaluate.intervals import bootstrap_interval, score_interval, wilson_interval


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


def test_the_same_scores_have_the_same_bootstrapped_interval_and_it_holds_their_mean() -> None:
    values = [0.84, 0.0, 0.25, 1.0, 0.6]
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert min(values) <= low < sum(values) / len(values) < high <= max(values)
    assert bootstrap_interval([0.3] * 7) == pytest.approx((0.3, 0.3))


def test_of_many_scores_the_bootstrapped_interval_is_the_normal_one() -> None:
    rng = random.Random(1)
    values = [rng.betavariate(2, 3) for _ in range(2000)]
    mean = sum(values) / len(values)
    half_width = 1.96 * math.sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
    assert bootstrap_interval(values) == pytest.approx((mean - half_width, mean + half_width), abs=0.1 * half_width)


def test_of_many_right_and_wrong_answers_the_bootstrapped_interval_is_wilsons() -> None:
    values = [1.0] * 600 + [0.0] * 1400
    assert bootstrap_interval(values) == pytest.approx(wilson_interval(600, 2000), abs=2e-3)


def test_more_numbers_than_are_resampled_at_a_time_give_an_interval_too(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.0, 0.5, 1.0] * 10
    whole = bootstrap_interval(values)
    monkeypatch.setattr("scripts.evaluate.intervals._NUM_AT_A_TIME", 7 * len(values))  # 10,000 is no multiple of 7
    assert bootstrap_interval(values) == whole


def test_right_and_wrong_answers_get_wilsons_interval_and_scores_in_between_a_bootstrapped_one() -> None:
    assert score_interval([1.0, 0.0, 1.0, 1.0]) == wilson_interval(3, 4)
    for values in ([1.0, 0.0, 0.5, 1.0], [1 / 3, 1.0, 2 / 3, 0.0]):  # a score in between; means over three seeds
        assert score_interval(values) == bootstrap_interval(values)
