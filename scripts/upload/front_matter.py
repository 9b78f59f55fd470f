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
    text = "\n".join(lines[1 : ends[0]])
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
