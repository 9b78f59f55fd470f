"""One job of a program: which interpreter runs it, and with which options."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Option = str | int | float | Mapping[str, Any] | list[Any] | None


@dataclass(frozen=True)
class Step:
    """A program's interpreter, by the role of its environment, and its options without their dashes.

    A list becomes several words, a mapping JSON; None leaves the option out. Text that begins with a dash stands in one word
    with its option, or it would be taken for another one.
    """

    role: str
    options: Mapping[str, Option]

    def arguments(self) -> list[str]:
        words = []
        for name, value in self.options.items():
            if value is None:
                continue
            if isinstance(value, str) and value.startswith("-"):
                words.append(f"--{name}={value}")
                continue
            words.append(f"--{name}")
            if isinstance(value, list):
                words += [str(each) for each in value]
            elif isinstance(value, Mapping):
                words.append(json.dumps(value, sort_keys=True))
            else:
                words.append(str(value))
        return words
