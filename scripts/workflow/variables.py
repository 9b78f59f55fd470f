"""Variables of `environment` sections that ms-swift and its libraries read as numbers when they start, hours after the plan."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

# swift/model/models/qwen.py (patch_qwen_vl_utils), swift/template, qwen_vl_utils/vision_process.py.
COUNT_VARIABLES = frozenset({
    "IMAGE_FACTOR", "MIN_PIXELS", "MAX_PIXELS", "VIDEO_MIN_PIXELS", "VIDEO_MAX_PIXELS", "VIDEO_TOTAL_PIXELS", "MAX_RATIO",
    "FRAME_FACTOR", "FPS_MIN_FRAMES", "FPS_MAX_FRAMES", "IMAGE_MAX_TOKEN_NUM", "IMAGE_MIN_TOKEN_NUM", "SPATIAL_MERGE_SIZE",
    "VIDEO_MAX_TOKEN_NUM", "VIDEO_MIN_TOKEN_NUM", "NFRAMES", "NUM_FRAMES", "VLLM_NUM_FRAMES", "MODEL_SEQ_LEN",
    "TORCHCODEC_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
})  # fmt: skip
RATE_VARIABLES = frozenset({"FPS", "DEVICE_TFLOPS"})

# Four tokens of 28 x 28, qwen_vl_utils' smallest picture.
DEFAULT_MIN_PIXELS = 4 * 28 * 28

# Which variable may not be above which, and the default of the lower one where that is known.
_ORDERED = (
    ("MIN_PIXELS", "MAX_PIXELS", DEFAULT_MIN_PIXELS),
    ("VIDEO_MIN_PIXELS", "VIDEO_MAX_PIXELS", None),
    ("FPS_MIN_FRAMES", "FPS_MAX_FRAMES", None),
    ("IMAGE_MIN_TOKEN_NUM", "IMAGE_MAX_TOKEN_NUM", None),
    ("VIDEO_MIN_TOKEN_NUM", "VIDEO_MAX_TOKEN_NUM", None),
)


def _count(value: Any) -> int | None:
    """A whole number from 1 on, given as such or as its digits."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0 else None


def _rate(value: Any) -> float | None:
    try:
        return number if 0 < (number := float(value)) < float("inf") else None
    except ValueError:
        return None


def variable_findings(where: str, environment: Mapping[str, Any]) -> Iterator[str]:
    """Values that are no number where one is read, and lower limits above upper ones; one line each."""
    counts: dict[str, int] = {}
    for name, value in environment.items():
        if name in COUNT_VARIABLES:
            if (count := _count(value)) is None:
                yield f"{where}.{name}: {json.dumps(value)} found, a whole number from 1 on expected, as in 1003520"
            else:
                counts[name] = count
        elif name in RATE_VARIABLES and _rate(value) is None:
            yield f"{where}.{name}: {json.dumps(value)} found, a number above 0 expected"
    for lower, upper, default in _ORDERED:
        smallest = counts.get(lower, default)
        if upper in counts and smallest is not None and counts[upper] < smallest:
            origin = "is" if lower in counts else "is by default"
            yield f"{where}.{upper}: {counts[upper]} found, but {lower} {origin} {smallest}; expected at least as many"
