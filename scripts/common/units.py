"""Sizes and durations as a reader wants them: few digits, and their units."""

import math

_SIZE_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def size(num_bytes: int) -> str:
    """17740000000 as `17.74 GB` (decimal units, as disks are sold)."""
    for unit, factor in _SIZE_UNITS:
        if num_bytes >= factor:
            return f"{num_bytes / factor:.2f} {unit}"
    return f"{num_bytes} B"


def duration(seconds: float) -> str:
    """102.4 as `1 min 42 s`, 7503 as `2 h 5 min`, 0.3512 as `0.351 s`: the two largest units."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds <= 0:
        return "0 s"
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    days, rest = divmod(round(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, whole_seconds = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole_seconds, "s")]
    largest = next(place for place, (value, _) in enumerate(parts) if value)
    return " ".join(f"{value} {unit}" for value, unit in parts[largest : largest + 2] if value)
