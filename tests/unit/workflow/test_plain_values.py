"""Values that neither a command line nor JSON can carry are named by their key."""

import datetime
from typing import Any

import pytest

from scripts.workflow.plain_values import MAX_INTEGER, structure_findings, value_findings


@pytest.mark.parametrize(
    ("value", "finding"),
    [
        ({True: 1}, "True: a key that is no text (yes, on or true) found"),
        ({"a": {None: 1}}, "a.None: a key that is no text (null) found"),
        ({"a": [{1: 1}]}, "a[0].1: a key that is no text (int) found"),
        ({"a": datetime.date(2026, 1, 1)}, "a: date found (2026-01-01)"),
        ({"a": [b"x"]}, "a[0]: bytes found"),
        ({"a": {"b": {1}}}, "a.b: set found"),
        ({"a\0": 1}, '"a\\u0000": text with a NUL character found'),
    ],
)
def test_what_json_does_not_have_is_named(value: Any, finding: str) -> None:
    (found,) = structure_findings(value)
    assert found.startswith(finding)


@pytest.mark.parametrize(
    ("value", "finding"),
    [
        (float("nan"), "a[0]: nan found, a finite number expected"),
        (float("-inf"), "a[0]: -inf found, a finite number expected"),
        (MAX_INTEGER + 1, "a[0]: a number beyond 2^63 found"),
        (-(10**400), "a[0]: a number beyond 2^63 found"),
        ("x\0y", "a[0]: text with a NUL character found"),
        ("x\ud83d", "a[0]: half a character found"),
    ],
)
def test_what_a_program_cannot_be_given_is_named(value: Any, finding: str) -> None:
    (found,) = value_findings({"a": [value]})
    assert found.startswith(finding)


def test_what_json_has_is_taken() -> None:
    value = {"a": [1, 2.5, True, None, "text\n", {"b": "\U0001f600", "c": MAX_INTEGER}]}
    assert [*structure_findings(value), *value_findings(value)] == []
