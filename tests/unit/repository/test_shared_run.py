"""A run that several tests share: the first test fails with it, those after it are skipped and say why."""

import pytest

from helpers.shared_run import SharedRun


def test_it_is_made_once() -> None:
    calls: list[int] = []

    def make() -> int:
        calls.append(1)
        return len(calls)

    run = SharedRun("the run", make)
    assert (run(), run()) == (1, 1)


def test_a_failed_one_fails_the_first_test_and_skips_the_others() -> None:
    def make() -> None:
        raise AssertionError("no room on the disk\nand much more")

    run = SharedRun("the run", make)
    with pytest.raises(AssertionError, match="no room"):
        run()
    with pytest.raises(pytest.skip.Exception, match=r"^the run failed before: no room on the disk$"):
        run()


def test_one_that_needs_a_failed_one_is_skipped_with_it_and_not_lost() -> None:
    def fail() -> None:
        raise AssertionError("down")

    below = SharedRun("the cluster", fail)
    above = SharedRun("the run", below)
    with pytest.raises(AssertionError):
        below()
    for _ in range(2):
        with pytest.raises(pytest.skip.Exception, match="the cluster failed before: down"):
            above()
