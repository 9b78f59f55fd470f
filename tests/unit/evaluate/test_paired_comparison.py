"""Two models are compared by the questions on which they differ."""

import pytest

from scripts.evaluate.intervals import bootstrap_interval
from scripts.evaluate.paired_comparison import PairedComparison, compare


def of_counts(num_both: int, num_first_only: int, num_second_only: int, num_neither: int) -> PairedComparison:
    """Of questions that were right or wrong."""
    first = [1.0] * (num_both + num_first_only) + [0.0] * (num_second_only + num_neither)
    second = [1.0] * num_both + [0.0] * num_first_only + [1.0] * num_second_only + [0.0] * num_neither
    return compare(first, second)


def test_questions_are_counted_by_who_was_right() -> None:
    first = [True, True, True, False, False, False]
    second = [True, False, False, True, False, False]
    assert compare(first, second) == PairedComparison([0, -1, -1, 1, 0, 0], 1, 2, 1, 2)


def test_models_asked_different_numbers_of_questions_are_not_compared() -> None:
    with pytest.raises(ValueError):
        compare([True], [True, False])


def test_the_difference_is_the_seconds_gain() -> None:
    pair = of_counts(num_both=50, num_first_only=5, num_second_only=20, num_neither=25)
    assert pair.difference == pytest.approx(0.15)
    low, high = pair.interval()
    # Bonett and Price by hand: (21 - 6) / 102 ± 1.96 * sqrt((27/102 - (15/102)**2) / 102)
    assert (low, high) == pytest.approx((0.0515, 0.2426), abs=5e-4)


@pytest.mark.parametrize(
    ("first_only", "second_only", "p"),
    [(0, 0, 1.0), (0, 1, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (5, 20, 0.004077), (10, 10, 1.0), (1, 9, 0.021484)],
)  # fmt: skip
def test_the_p_value_is_that_of_the_exact_test(first_only: int, second_only: int, p: float) -> None:
    # scipy.stats.binomtest(first_only, first_only + second_only).pvalue, scipy 1.17.1
    assert of_counts(3, first_only, second_only, 4).p_value() == pytest.approx(p, abs=5e-7)


def test_an_interval_stays_within_what_is_possible() -> None:
    assert of_counts(0, 0, 2, 0).interval()[1] == 1.0
    assert of_counts(0, 2, 0, 0).interval()[0] == -1.0


def test_without_any_difference_the_interval_holds_zero_and_is_not_empty() -> None:
    low, high = of_counts(40, 0, 0, 60).interval()
    assert low < 0 < high


def test_scores_in_between_count_for_the_model_that_has_more_of_them() -> None:
    pair = compare([0.5, 0.5, 0.0, 1.0, 0.9], [0.5, 0.75, 0.0, 0.25, 1.0])
    assert (pair.num_both, pair.num_first_only, pair.num_second_only, pair.num_neither) == (1, 1, 2, 1)
    assert pair.difference == pytest.approx((0.25 - 0.75 + 0.1) / 5)
    assert pair.interval() == bootstrap_interval(pair.differences)
    assert pair.p_value() == 1.0  # the sign test: one against two


def test_means_over_seeds_are_compared_question_by_question() -> None:
    first, second = [0.0, 1 / 3, 2 / 3] * 20, [1 / 3, 2 / 3, 1.0] * 20
    pair = compare(first, second)
    assert pair.num_questions == 60  # questions, not answers
    assert pair.interval() == pytest.approx((1 / 3, 1 / 3))
    assert pair.num_second_only == 60 and pair.p_value() < 1e-15


def test_whether_a_model_was_better_is_not_decided_by_which_of_two_stands_first() -> None:
    first, second = [1.0, 0.4, 0.0, 0.2], [0.0, 0.8, 1.0, 0.3]
    one, other = compare(first, second), compare(second, first)
    assert (one.difference, one.p_value()) == (-other.difference, other.p_value())
    assert (one.num_first_only, one.num_second_only) == (other.num_second_only, other.num_first_only)
