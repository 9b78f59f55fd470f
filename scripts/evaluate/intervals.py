"""The mean and the 95 % interval of a score."""

import math
from collections.abc import Iterable, Sequence

import numpy

# Standard normal quantile at 0.975, for a two-sided 95 % interval.
Z_95 = 1.959963984540054
NUM_RESAMPLES = 10_000

# Numbers that are resampled at a time: 64 MB.
_NUM_AT_A_TIME = 8_000_000


def wilson_interval(num_correct: int, num_questions: int) -> tuple[float, float]:
    """95 % interval of a share after Wilson (1927), which holds for few questions and near 0 and 1 too."""
    share = num_correct / num_questions
    z2_n = Z_95**2 / num_questions
    centre = share + z2_n / 2
    half_width = Z_95 * math.sqrt(share * (1 - share) / num_questions + z2_n / (4 * num_questions))
    return max(0.0, (centre - half_width) / (1 + z2_n)), min(1.0, (centre + half_width) / (1 + z2_n))


def question_means(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    """One value a question, the mean over its seeds, from (index, score) of each answer."""
    of_question: dict[str, list[float]] = {}
    for index, score in scores:
        of_question.setdefault(index, []).append(score)
    return {index: math.fsum(each) / len(each) for index, each in of_question.items()}


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean, from the percentiles of resampled means; the same values give the same interval."""
    numbers = numpy.asarray(values, dtype=float)
    rng = numpy.random.default_rng(0)
    num_rows = max(1, _NUM_AT_A_TIME // len(numbers))
    means = [
        numbers[rng.integers(0, len(numbers), (min(num_rows, NUM_RESAMPLES - start), len(numbers)))].mean(axis=1)
        for start in range(0, NUM_RESAMPLES, num_rows)
    ]
    low, high = numpy.percentile(numpy.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def is_right_or_wrong(values: Sequence[float]) -> bool:
    """Whether each question was simply right or wrong: neither a score in between nor a mean over several seeds."""
    return set(values) <= {0, 1}


def score_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of one value a question: Wilson's where they are right or wrong, else by bootstrap.

    With several seeds the values are means over the seeds, so that questions, not answers, are what is counted.
    """
    return wilson_interval(round(sum(values)), len(values)) if is_right_or_wrong(values) else bootstrap_interval(values)
