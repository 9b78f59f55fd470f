"""Rows are encoded by several processes as by one, and a process that dies is noticed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.data import encode_rows as module
from scripts.data.encode_rows import encode_rows
from scripts.data.training_encoding import EncodedRow

NUM_ROWS = 2500


class Encoder:
    """Counts characters instead of tokens."""

    def encoded(self, row: Mapping[str, Any]) -> EncodedRow:
        if row["text"] == "end":
            os._exit(7)
        return EncodedRow(num_tokens=len(row["text"]))


@pytest.fixture
def rows_path(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "x" * (n % 97)}) + "\n" for n in range(NUM_ROWS)))
    return tmp_path / "rows.jsonl"


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_each_row_is_encoded_once_but_the_skipped_ones(
    rows_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    monkeypatch.setattr(module, "MIN_NUM_ROWS_FOR_WORKERS", 0)
    skipped = {1, 512, 513, NUM_ROWS}
    found = list(encode_rows(rows_path, Encoder(), NUM_ROWS, skipped, num_workers))  # type: ignore[arg-type]
    assert sorted((number, row.num_tokens) for number, row in found) == [
        (number, (number - 1) % 97) for number in range(1, NUM_ROWS + 1) if number not in skipped
    ]


def test_a_process_that_dies_ends_the_check(rows_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_NUM_ROWS_FOR_WORKERS", 0)
    rows_path.write_text(rows_path.read_text() + json.dumps({"text": "end"}) + "\n")
    with pytest.raises(UserError, match="exit code 7"):
        list(encode_rows(rows_path, Encoder(), NUM_ROWS + 1, (), 2))  # type: ignore[arg-type]
