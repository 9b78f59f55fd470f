"""JSON is read as Python reads it, and what Python takes in silence or dies of is refused."""

import json

import pytest

from scripts.common.json_text import MAX_DEPTH, json_value

DEEPEST = "[" * MAX_DEPTH + "]" * MAX_DEPTH


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -2.5e-3, true, null, "\\u00e9\\ud83d\\ude00"], "b": {"a": {}}}',
        '"one text"',
        "1" + "0" * 30,
        DEEPEST,
        "[" + ",".join(["[[1]]"] * 1000) + "]",
    ],
)
def test_sound_json_is_read_as_python_reads_it(text: str) -> None:
    assert (
        json_value(text) == json.loads(text) == json_value(text.encode()) == json_value(b"\xef\xbb\xbf" + text.encode())
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"a": 1', "Expecting ',' delimiter"),
        (f"[{DEEPEST}]", f"nested more than {MAX_DEPTH} deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, f"nested more than {MAX_DEPTH} deep"),
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "key 'b' found twice in one section"),
        ("[1, NaN]", "NaN found"),
        ("-Infinity", "-Infinity found"),
        ("[-1e999]", "-1e999 found, beyond the largest number"),
        ("1" * 301, "a number of 301 digits found"),
        ("1" * 5000, "a number of 5000 digits found"),
        ('{"\\ud83d": 1}', r"half a character found \('\\ud83d'\)"),
        ('["a\ud800"]', r"half a character found \('\\ud800'\)"),
        ('["a\\uDE00"]', r"half a character found \('\\ude00'\)"),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_json_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        json_value(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="can't decode"):
        json_value(b'"\xff"')


def test_nan_is_taken_only_where_it_is_asked_for() -> None:
    first, second = json_value("[NaN, -Infinity]", takes_nan=True)
    assert first != first and second == float("-inf")
    with pytest.raises(ValueError, match="1e999 found"):
        json_value("1e999", takes_nan=True)
