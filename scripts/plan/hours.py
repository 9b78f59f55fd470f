"""How long a stage takes on a GPU, as a range.

MFU differs by what no plan can know: kernels, lengths that differ, the network. Published trainings of this size lie mostly
between the two (benchmarks/results/plan.md).
"""

# Of the peak; the lower one first.
MFU_RANGE = (0.20, 0.48)


def hours_of(model_flop: float, num_gpus: int, peak_tflop_s: float) -> tuple[float, float]:
    """The shortest and the longest time."""
    at_peak_h = model_flop / (num_gpus * peak_tflop_s * 1e12) / 3600
    return at_peak_h / MFU_RANGE[1], at_peak_h / MFU_RANGE[0]
