"""Removes paths of this machine from what is published: an absolute path is replaced by its last part."""

from pathlib import PurePosixPath
from typing import Any


def without_local_paths(value: Any) -> Any:
    """`value` (JSON) with `/home/somebody/data/train.jsonl#100` as `train.jsonl#100`; relative paths and ids stay."""
    if isinstance(value, dict):
        return {key: without_local_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_local_paths(part) for part in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return PurePosixPath(value).name or value
    return value
