"""What is published names no path of this machine."""

from typing import Any

import pytest

from scripts.train.local_paths import without_local_paths


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/me/train.jsonl#100", "train.jsonl#100"),
        ("~/x/train.jsonl", "train.jsonl"),
        ("resources/data/train.jsonl", "resources/data/train.jsonl"),
        ("swift/llava-data:llava_instruct", "swift/llava-data:llava_instruct"),
        ({"a": ["/x/y", 3]}, {"a": ["y", 3]}),
    ],
)
def test_a_path_from_the_root_is_shown_by_its_last_part(value: Any, expected: Any) -> None:
    assert without_local_paths(value) == expected
