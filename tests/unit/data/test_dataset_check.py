"""The report on a sound training set is read as it was written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.data.dataset_check import DatasetCheck, Spread, read_dataset_check, spread, write_dataset_check

CHECK = DatasetCheck(4, 1, 4, 3, 4, Spread(10, 20, 60), Spread(20, 30.5, 40), Spread(400, 400, 1800), 512, "ab" * 32)


@pytest.mark.parametrize(
    "check", [CHECK, replace(CHECK, picture_width_px=None, picture_height_px=None, picture_area_px=None)]
)
def test_what_is_written_is_read_again(tmp_path: Path, check: DatasetCheck) -> None:
    write_dataset_check(tmp_path / "check.json", check)
    assert read_dataset_check(tmp_path / "check.json") == check


def test_a_report_that_lacks_a_key_names_it(tmp_path: Path) -> None:
    (tmp_path / "check.json").write_text(json.dumps({"num_rows": 4}))
    with pytest.raises(UserError, match=r"check\.json: num_duplicate_rows: missing; expected int"):
        read_dataset_check(tmp_path / "check.json")


def test_of_no_values_there_is_no_spread() -> None:
    assert spread([]) is None
    assert spread([3, 1, 2]) == Spread(min=1, median=2, max=3)
