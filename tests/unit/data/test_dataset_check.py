"""The report on a sound training set is read as it was written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.report_inputs import DATASET_CHECK as CHECK
from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.data.dataset_check import (
    DatasetCheck,
    Spread,
    length_bins,
    read_dataset_check,
    require_checked,
    spread,
    write_dataset_check,
)

WITHOUT_PICTURES = {"picture_width_px": None, "picture_height_px": None, "picture_area_px": None, "tokens": None}


@pytest.mark.parametrize("check", [CHECK, replace(CHECK, **WITHOUT_PICTURES)])
def test_what_is_written_is_read_again(tmp_path: Path, check: DatasetCheck) -> None:
    write_dataset_check(tmp_path / "check.json", check)
    assert read_dataset_check(tmp_path / "check.json") == check


def test_a_report_that_lacks_a_key_names_it(tmp_path: Path) -> None:
    (tmp_path / "check.json").write_text(json.dumps({"num_rows": 4}))
    with pytest.raises(UserError, match=r"check\.json: num_dropped_rows: missing; expected int"):
        read_dataset_check(tmp_path / "check.json")


def test_of_no_values_there_is_no_spread() -> None:
    assert spread([]) is None
    assert spread([3, 1, 2]) == Spread(min=1, median=2, max=3)


def test_rows_are_counted_by_the_power_of_two_that_holds_them() -> None:
    lengths = [1, 2, 3, 4, 5, 8, 9, 64, 65]
    bins = length_bins(lengths)
    assert [(each.up_to_tokens, each.num_rows) for each in bins] == [
        (1, 1), (2, 1), (4, 2), (8, 2), (16, 1), (32, 0), (64, 1), (128, 1)
    ]  # fmt: skip


def test_rows_that_were_edited_after_their_check_are_refused(tmp_path: Path) -> None:
    (tmp_path / "stage1.jsonl").write_text("{}\n")
    write_dataset_check(tmp_path / "check.json", replace(CHECK, sha256=sha256_of_file(tmp_path / "stage1.jsonl")))
    require_checked(tmp_path / "stage1.jsonl", tmp_path / "check.json")
    (tmp_path / "stage1.jsonl").write_text("{ }\n")
    with pytest.raises(UserError, match=r"stage1\.jsonl: sha256 .* expected by .*check\.json: the rows were edited"):
        require_checked(tmp_path / "stage1.jsonl", tmp_path / "check.json")
