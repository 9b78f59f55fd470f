"""Bad rows refuse a dataset, or are dropped up to a share."""

import pytest

from scripts.common.errors import UserError
from scripts.data.bad_rows import MAX_NUM_SHOWN, BadRows, DroppedRow
from scripts.data.settings import DataSettings


def bad_rows(num: int, policy: str, max_fraction: float = 0.1) -> BadRows:
    settings = DataSettings(bad_rows=policy, max_dropped_fraction=max_fraction, ignored_keys=[])  # type: ignore[arg-type]
    return BadRows(settings, [DroppedRow("/a.jsonl", number, "why") for number in range(1, num + 1)])


def test_without_bad_rows_nothing_is_said() -> None:
    bad_rows(0, "refuse").settle(10, "stage1")


def test_one_bad_row_refuses_a_dataset_and_says_how_to_drop_it() -> None:
    with pytest.raises(UserError, match=r"1 of 10 rows .*data\.bad_rows: drop\n  /a\.jsonl, line 1: why"):
        bad_rows(1, "refuse").settle(10, "stage1")


@pytest.mark.parametrize(("num_bad", "is_refused"), [(1, False), (10, False), (11, True)])
def test_up_to_the_largest_share_rows_are_dropped(num_bad: int, is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(UserError, match="more than may be dropped"):
            bad_rows(num_bad, "drop").settle(100, "stage1")
    else:
        bad_rows(num_bad, "drop").settle(100, "stage1")


def test_a_dataset_of_bad_rows_alone_is_refused_whatever_the_share() -> None:
    with pytest.raises(UserError, match="3 of 3 rows"):
        bad_rows(3, "drop", 0.999).settle(3, "stage1")


def test_of_many_bad_rows_the_first_are_named() -> None:
    with pytest.raises(UserError, match="and 5 more") as caught:
        bad_rows(MAX_NUM_SHOWN + 5, "refuse").settle(1000, "stage1")
    assert f"line {MAX_NUM_SHOWN}: " in str(caught.value)
    assert f"line {MAX_NUM_SHOWN + 1}: " not in str(caught.value)
