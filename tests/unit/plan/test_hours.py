"""The range of hours, and whether published times lie in it."""

import pytest

from benchmarks.plan import PUBLISHED_PATH, compare, read_published, share_of_times_covered
from scripts.plan.hours import MFU_RANGE, hours_of


def test_hours_are_the_work_over_the_cards_at_both_ends_of_the_range() -> None:
    shortest, longest = hours_of(8 * 100e12 * 3600, 8, 100)
    assert (shortest, longest) == (pytest.approx(1 / MFU_RANGE[1]), pytest.approx(1 / MFU_RANGE[0]))


def test_three_quarters_of_the_published_times_lie_in_the_range() -> None:
    compared = [compare(training) for training in read_published(PUBLISHED_PATH)]
    assert sum(each.implied_mfu is not None for each in compared) >= 8
    assert share_of_times_covered(compared) >= 0.75
