"""The YAML at the head of a hub's README.md, between two lines of three dashes."""

from typing import Any

import yaml

FENCE = "---"


def read_front_matter(text: str) -> dict[str, Any]:
    """Its keys and values. Raises ValueError with the reason where a hub could not read it."""
    lines = text.split("\n")
    if lines[0].rstrip() != FENCE:
        raise ValueError(f"its first line is {lines[0][:60]!r}, not {FENCE}")
    ends = [number for number, line in enumerate(lines[1:], start=1) if line.rstrip() == FENCE]
    if not ends:
        raise ValueError(f"no second line of {FENCE}")
    try:
        value = yaml.safe_load("\n".join(lines[1 : ends[0]]))
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__} found, no keys and values")
    return value
