"""Two models on the same questions: which is better, by the questions on which they differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.evaluate.intervals import Z_95, bootstrap_interval, is_right_or_wrong


@dataclass(frozen=True)
class PairedComparison:
    """Each question's difference (the second's score less the first's), and how often which model was better.

    Of right and wrong answers, better means: right where the other was wrong.
    """

    differences: Sequence[float]
    num_both: int  # equally good, and not both at 0
    num_first_only: int
    num_second_only: int
    num_neither: int

    @property
    def num_questions(self) -> int:
        return len(self.differences)

    @property
    def difference(self) -> float:
        """The second's accuracy less the first's."""
        return math.fsum(self.differences) / self.num_questions

    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference: after Bonett and Price (2012), or by bootstrap where scores lie in between.

        Bonett and Price's is Wald's with one question added to each of the two counts in which the models differ, so that it
        holds for few questions and few differences too.
        """
        if not is_right_or_wrong([abs(difference) for difference in self.differences]):
            return bootstrap_interval(self.differences)
        num = self.num_questions + 2
        first, second = (self.num_first_only + 1) / num, (self.num_second_only + 1) / num
        half_width = Z_95 * math.sqrt((first + second - (second - first) ** 2) / num)
        return max(-1.0, second - first - half_width), min(1.0, second - first + half_width)

    def p_value(self) -> float:
        """Exact two-sided McNemar test, whose hypothesis is that each differing question may favour either model alike.

        Where scores lie in between it is the sign test; McNemar's is the sign test of right and wrong.
        """
        num = self.num_first_only + self.num_second_only
        fewer = min(self.num_first_only, self.num_second_only)
        return min(1.0, 2 * sum(math.comb(num, k) for k in range(fewer + 1)) / 2**num)


def compare(first: Sequence[float], second: Sequence[float]) -> PairedComparison:
    """From each model's scores, question by question in the same order."""
    pairs = list(zip(first, second, strict=True))
    num_equal_at_zero = sum(one == other == 0 for one, other in pairs)
    return PairedComparison(
        [other - one for one, other in pairs],
        sum(one == other for one, other in pairs) - num_equal_at_zero,
        sum(one > other for one, other in pairs),
        sum(one < other for one, other in pairs),
        num_equal_at_zero,
    )
