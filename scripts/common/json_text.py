"""Reads JSON that somebody else may have written: what Python's own reader takes in silence, or dies of, is refused."""

import json
import math
import re
from collections import Counter
from typing import Any

# More than any configuration, row or record has; readers that call themselves for each section would run out of stack.
MAX_DEPTH = 100
# Above the largest number that is a float as well; tokenizers give 10^30 as a length without limit.
MAX_NUM_DIGITS = 300
# Written out, or as it is: an argument that is no UTF-8 reaches Python so.
_HALF_A_CHARACTER = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def json_value(text: str | bytes, *, takes_nan: bool = False) -> Any:
    """The value of a JSON text in UTF-8. With `takes_nan` NaN and infinity are numbers, as Python writes them.

    Raises ValueError with the reason where it is none, where a section has a key twice, where a number is not finite or has
    too many digits, where a text holds half a character, or where it is nested more than `MAX_DEPTH` deep.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_section,
            parse_constant=float if takes_nan else _constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        check_depth(value)
    if _HALF_A_CHARACTER.search(text):
        _check_characters(value)
    return value


def _section(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    section = dict(pairs)
    if len(section) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"key {name!r} found twice in one section")
    return section


def _constant(name: str) -> Any:
    raise ValueError(f"{name} found, which is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_NUM_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits found")
    return int(digits)


def _number(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"{digits[:40]} found, beyond the largest number")
    return number


def check_depth(value: Any) -> None:
    """Raises ValueError where sections and lists are nested more than `MAX_DEPTH` deep."""
    level = [value]
    for _ in range(MAX_DEPTH):
        parts = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [part for each in parts for part in each]
    if any(isinstance(each, dict | list) for each in level):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _check_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character found ({error.object[error.start]!r}), which no file can hold") from None
