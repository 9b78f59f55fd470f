"""Rows as they were counted; else assumed, and said so; never guessed of a set that nobody knows."""

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.report_inputs import DATASET_CHECK
from scripts.common.errors import UserError
from scripts.data.dataset_check import Spread, TokenCounts, write_dataset_check
from scripts.plan.rows import ASSUMED_PICTURE_TOKENS, ASSUMED_TEXT_TOKENS, known_sets, planned_rows


def test_a_check_is_used_where_there_is_one(tmp_path: Path) -> None:
    counts = TokenCounts(1000, 600, 300, Spread(10, 20, 90), 512, [])
    write_dataset_check(tmp_path / "check.json", replace(DATASET_CHECK, num_rows=40, tokens=counts))
    rows = planned_rows(["no/such"], tmp_path / "check.json", 512)
    assert (rows.num_rows, rows.mean_tokens, rows.mean_picture_tokens) == (40, 25, 15)
    assert (rows.median_tokens, rows.longest_tokens) == (20, 90) and "counted in" in rows.origin


def test_a_known_set_is_assumed_with_the_rows_that_are_asked_for_and_the_longest_that_are_trained(
    tmp_path: Path,
) -> None:
    name, known = next(iter(known_sets().items()))
    rows = planned_rows([f"{name}#1000"], tmp_path / "none", 300)
    assert (rows.num_rows, rows.mean_tokens, rows.longest_tokens) == (1000, known.mean_tokens, 300)
    assert "assumed" in rows.origin


def test_lines_of_a_file_are_counted_and_several_sources_weighted_by_them(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n\n{}\n{}")
    name, known = next(iter(known_sets().items()))
    rows = planned_rows([str(tmp_path / "a.jsonl"), f"{name}#1"], tmp_path / "none", None)
    of_file = ASSUMED_PICTURE_TOKENS + ASSUMED_TEXT_TOKENS
    assert rows.num_rows == 4
    assert rows.mean_tokens == pytest.approx((3 * of_file + known.mean_tokens) / 4)
    assert "3 lines" in rows.origin and name in rows.origin


def test_a_set_that_nobody_knows_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"my/set: not fetched yet.*run `snakemake check`, or add it there"):
        planned_rows(["my/set"], tmp_path / "none", None)
