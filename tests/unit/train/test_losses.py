"""A loss that jumps after a resume is seen."""

import pytest

from scripts.train.losses import LossPoint, loss_goes_on, losses_of


def test_losses_come_without_the_trainers_summary() -> None:
    history = [{"step": 1, "loss": 2.0, "learning_rate": 0.1, "grad_norm": 3.0}, {"step": 1, "train_runtime": 5.0}]
    assert losses_of(history) == [LossPoint(1, 2.0, 0.1, 3.0)]


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        ([2.0, 1.3, 1.2], 1.25, True),
        ([2.0, 1.3, 1.2, 1.1, 1.2, 1.1], 4.0, False),  # an empty resume starts at the first loss again
        ([0.01], 0.4, True),  # a small loss may wander
        ([1.0], float("nan"), False),
        ([1.0], float("inf"), False),
        ([], 9.0, True),
        ([], float("nan"), False),
    ],
)
def test_a_loss_that_jumps_after_a_resume_is_seen(before: list[float], after: float, goes_on: bool) -> None:
    assert loss_goes_on(before, after) is goes_on
