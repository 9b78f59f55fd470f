"""The command line of ms-swift."""

import json
from collections.abc import Mapping
from typing import Any


def flag_arguments(flags: Mapping[str, Any]) -> list[str]:
    """`--name value` for each flag; lists become several values, dicts JSON; None is left out."""
    arguments: list[str] = []
    for name, value in flags.items():
        if value is None:
            continue
        if isinstance(value, str) and value.startswith("-"):  # or it would be taken for another flag
            arguments.append(f"--{name}={value}")
            continue
        values = value if isinstance(value, list) else [value]
        arguments.append(f"--{name}")
        for item in values:
            if isinstance(item, bool):
                arguments.append("true" if item else "false")
            elif isinstance(item, dict):
                arguments.append(json.dumps(item))
            else:
                arguments.append(str(item))
    return arguments
