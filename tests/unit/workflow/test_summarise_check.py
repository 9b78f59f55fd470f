"""The lines that a check ends with say what was found."""

import json
from dataclasses import replace
from pathlib import Path

from helpers.report_inputs import DATASET_CHECK
from scripts.workflow.summarise_check import questions_line, rows_line


def test_the_line_of_a_stage_has_rows_tokens_and_what_was_changed_or_dropped() -> None:
    assert rows_line("stage1", DATASET_CHECK) == (
        "stage1: 6,582 rows, 6,582 pictures, 391,629 tokens (7% of pictures), the longest row has 80 of at most 512, "
        "3 pictures turned upright, 1 rows dropped, listed in stage1.check.json"
    )
    plain = replace(DATASET_CHECK, num_dropped_rows=0, num_changed_pictures={}, tokens=None)
    assert rows_line("stage2", plain) == "stage2: 6,582 rows, 6,582 pictures"


def test_the_line_of_a_benchmark_has_its_number_of_questions_where_a_record_has_it(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"num_questions": 1234}))
    (tmp_path / "MMMU_DEV_VAL.md5").write_text("ab  MMMU_DEV_VAL.tsv\n")
    assert questions_line(tmp_path / "mine.json") == "mine: 1,234 questions"
    assert questions_line(tmp_path / "MMMU_DEV_VAL.md5") == "MMMU_DEV_VAL: fetched, as published"
