"""What identifies a training set: its rows and its pictures."""

import json
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.data.fingerprint import dataset_sha256


def test_a_training_sets_hash_follows_rows_and_pictures(tmp_path: Path) -> None:
    picture, dataset = tmp_path / "0.png", tmp_path / "data.jsonl"
    picture.write_bytes(b"one")
    dataset.write_text(
        json.dumps({"messages": [], "images": [str(picture)]}) + "\n\n" + json.dumps({"messages": [1]}) + "\n"
    )
    before, num_rows = dataset_sha256(dataset)
    assert num_rows == 2
    assert dataset_sha256(dataset) == (before, 2)
    picture.write_bytes(b"two")
    assert dataset_sha256(dataset)[0] != before
    picture.write_bytes(b"one")
    assert dataset_sha256(dataset)[0] == before
    with open(dataset, "a") as file:
        file.write(json.dumps({"messages": [2]}) + "\n")
    assert dataset_sha256(dataset)[0] != before


def test_an_empty_or_broken_training_set_is_refused_by_name(tmp_path: Path) -> None:
    dataset = tmp_path / "data.jsonl"
    dataset.write_text("\n")
    with pytest.raises(UserError, match=r"data.jsonl: empty; expected at least one row"):
        dataset_sha256(dataset)
    dataset.write_text('{"messages": []}\n{"mess\n')
    with pytest.raises(UserError, match=r"data.jsonl: row 2 is no JSON object"):
        dataset_sha256(dataset)
