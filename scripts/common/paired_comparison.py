"""Two models on the same questions: which of them is better, from the questions on which they differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.intervals import Z_95


@dataclass(frozen=True)
class PairedComparison:
    """How often both, one, the other or neither of two models was right."""

    num_both: int
    num_first_only: int
    num_second_only: int
    num_neither: int

    @property
    def num_questions(self) -> int:
        return self.num_both + self.num_first_only + self.num_second_only + self.num_neither

    @property
    def difference(self) -> float:
        """The second's accuracy less the first's."""
        return (self.num_second_only - self.num_first_only) / self.num_questions

    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference, after Bonett and Price (2012): Wald's, with one question added to each of the two
        counts in which the models differ, which keeps it honest for few questions and for few differences.
        """
        num = self.num_questions + 2
        first, second = (self.num_first_only + 1) / num, (self.num_second_only + 1) / num
        half_width = Z_95 * math.sqrt((first + second - (second - first) ** 2) / num)
        return max(-1.0, second - first - half_width), min(1.0, second - first + half_width)

    def p_value(self) -> float:
        """Exact two-sided McNemar test: the differing questions, each as likely to favour one model as the other."""
        num = self.num_first_only + self.num_second_only
        fewer = min(self.num_first_only, self.num_second_only)
        return min(1.0, 2 * sum(math.comb(num, k) for k in range(fewer + 1)) / 2**num)


def compare(first: Sequence[bool], second: Sequence[bool]) -> PairedComparison:
    """Whether each model was right, question by question in the same order."""
    pairs = list(zip(first, second, strict=True))
    counts = [pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))]
    return PairedComparison(*counts)
