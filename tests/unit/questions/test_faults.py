"""Faults are kept until the end, and told together."""

import pytest

from scripts.common.errors import UserError
from scripts.questions.faults import MAX_NUM_SHOWN, Faults


def test_a_fault_ends_its_block_and_nothing_else() -> None:
    faults, reached = Faults(), []
    for number in range(3):
        with faults.noted():
            if number == 1:
                raise UserError("one")
            reached.append(number)
    assert reached == [0, 2]
    with pytest.raises(UserError, match=r"^one$"):
        faults.settle()


def test_without_a_fault_nothing_is_raised_and_another_error_is_none_of_them() -> None:
    faults = Faults()
    faults.settle()
    with pytest.raises(ZeroDivisionError), faults.noted():
        raise ZeroDivisionError


def test_many_faults_are_counted() -> None:
    with pytest.raises(UserError) as caught:
        Faults([str(number) for number in range(MAX_NUM_SHOWN + 5)]).settle()
    assert (
        str(caught.value).splitlines()[-1] == "and 5 more" and len(str(caught.value).splitlines()) == MAX_NUM_SHOWN + 1
    )
