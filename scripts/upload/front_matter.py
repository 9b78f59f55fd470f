"""The YAML at the head of a hub's README.md, between two lines of three dashes."""

import re
from itertools import accumulate
from typing import Any

import yaml

FENCE = "---"


# More than any page of a hub has; yaml needs minutes for some ten thousand levels, before it fails.
MAX_DEPTH = 200
_BLOCKS = re.compile(rf"(?:[-?]\s+){{{MAX_DEPTH}}}")


def _is_deep(text: str) -> bool:
    """By its brackets, and by its dashes one after the other."""
    changes = [1 if letter in "[{" else -1 for letter in text if letter in "[]{}"]
    return max(accumulate(changes), default=0) > MAX_DEPTH or _BLOCKS.search(text) is not None


def read_front_matter(text: str) -> dict[str, Any]:
    """Its keys and values. Raises ValueError with the reason where a hub could not read it."""
    lines = text.split("\n")
    if lines[0].rstrip() != FENCE:
        raise ValueError(f"its first line is {lines[0][:60]!r}, not {FENCE}")
    ends = [number for number, line in enumerate(lines[1:], start=1) if line.rstrip() == FENCE]
    if not ends:
        raise ValueError(f"no second line of {FENCE}")
    text = "\n".join(lines[1 : ends[0]])
    if _is_deep(text):
        raise ValueError(f"no YAML: nested in more than {MAX_DEPTH} levels")
    try:
        # Aliases of aliases would become millions of values.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("aliases found")
        value = yaml.safe_load(text)
    except (
        Exception
    ) as error:  # beside YAMLError: RecursionError, IndexError of `!!int ""`, and whatever else a constructor meets
        raise ValueError(f"no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__} found, no keys and values")
    return value
