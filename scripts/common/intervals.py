"""The interval that a score comes with."""

import math

# Standard normal quantile at 0.975, for a two-sided 95 % interval.
Z_95 = 1.959963984540054


def wilson_interval(num_correct: int, num_questions: int) -> tuple[float, float]:
    """95 % interval of a proportion after Wilson (1927), which holds for few questions and near 0 and 1 too."""
    share = num_correct / num_questions
    z2_n = Z_95**2 / num_questions
    centre = share + z2_n / 2
    half_width = Z_95 * math.sqrt(share * (1 - share) / num_questions + z2_n / (4 * num_questions))
    return max(0.0, (centre - half_width) / (1 + z2_n)), min(1.0, (centre + half_width) / (1 + z2_n))
