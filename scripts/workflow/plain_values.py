"""Finds values that no setting can have: what neither a command line nor JSON can carry unchanged.

YAML has more than text, numbers, lists and sections: dates, sets, bytes, numbers that are none, keys that are numbers. They are
named before the schema is asked, which knows only what JSON has.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from scripts.workflow.config_files import key_path

# What programs and libraries hold in 64 bits.
MAX_INTEGER = 2**63 - 1


# What YAML makes of these words when they stand without quotes.
_WORDS_OF = {True: "yes, on or true", False: "no, off or false", None: "null"}


def _key_finding(key: Any, path: tuple[Any, ...]) -> str | None:
    where = key_path([*path, str(key)])
    if isinstance(key, str):
        return _text_finding(key, where)
    meaning = _WORDS_OF[key] if key is None or isinstance(key, bool) else type(key).__name__
    return f"{where}: a key that is no text ({meaning}) found; expected a word; write it in quotes"


def _text_finding(text: str, where: str) -> str | None:
    if "\0" in text:
        return f"{where}: text with a NUL character found, which no command can be given; remove it"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return f"{where}: half a character found ({json.dumps(text)}), which no file can hold; write the whole one"
    return None


def _number_finding(number: int | float, where: str) -> str | None:
    if isinstance(number, float) and not math.isfinite(number):
        return f"{where}: {number} found, a finite number expected"
    if abs(number) > MAX_INTEGER:
        return f"{where}: a number beyond 2^63 found; expected a smaller one"
    return None


def _nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """A value and everything in it, each with its path."""
    yield path, value
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _nodes(part, (*path, key))


def structure_findings(value: Any) -> Iterator[str]:
    """Keys and values that JSON does not have, a line each."""
    for path, node in _nodes(value):
        if isinstance(node, Mapping):
            yield from filter(None, (_key_finding(key, path) for key in node))
        elif not (node is None or isinstance(node, str | int | float | list)):
            kind = type(node).__name__
            yield f"{key_path(path)}: {kind} found ({node}); expected text, a number, true or false; write it in quotes"


def value_findings(value: Any) -> Iterator[str]:
    """Text and numbers that a program cannot be given, a line each."""
    for path, node in _nodes(value):
        if isinstance(node, str):
            yield from filter(None, [_text_finding(node, key_path(path))])
        elif isinstance(node, int | float):
            yield from filter(None, [_number_finding(node, key_path(path))])
