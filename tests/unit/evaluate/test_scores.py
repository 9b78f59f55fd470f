"""The score table sums up records, and reads back as it was written."""

from pathlib import Path

import pytest

from helpers.evaluation_inputs import provenance, record, records
from scripts.common.errors import UserError
from scripts.evaluate.intervals import bootstrap_interval, wilson_interval
from scripts.evaluate.records import Record
from scripts.evaluate.scores import (
    SCORE_COLUMNS,
    Benchmark,
    check_same_weights,
    overall_table,
    read_scores,
    scores_of,
    scores_text,
)


def of_seed(seed: int, *right: int) -> list[Record]:
    """Four questions of one split, of which these are answered right."""
    return [record(index, split="test", subject=None, seed=seed, correct=index in right) for index in range(4)]


def test_each_split_has_an_overall_row_and_one_for_each_group() -> None:
    rows = scores_of("stage1", records())
    assert [(r.split, r.group, r.name, r.num_questions, r.num_correct) for r in rows] == [
        ("dev", "overall", "", 5, 2),
        ("dev", "discipline", "digits", 5, 2),
        ("dev", "subject", "even", 3, 0),
        ("dev", "subject", "odd", 2, 2),
        ("test", "overall", "", 10, 5),
        ("test", "discipline", "digits", 10, 5),
        ("test", "subject", "even", 5, 0),
        ("test", "subject", "odd", 5, 5),
    ]


def test_questions_without_groups_give_overall_rows_only() -> None:
    assert [row.group for row in scores_of("stage1", records(discipline=None, subject=None))] == ["overall", "overall"]


def test_unparsed_and_truncated_answers_are_counted() -> None:
    lines = records()
    lines[5] = record(5, status="unparsed", extracted=None, correct=False)
    lines[6:8] = [record(index, status="truncated") for index in (6, 7)]
    row = next(row for row in scores_of("stage1", lines) if row.split == "test")
    assert (row.num_unparsed, row.num_truncated, row.num_correct) == (1, 2, 4)


def test_shares_have_six_decimals_and_wilsons_interval() -> None:
    low, high = wilson_interval(2, 5)
    first = scores_text(scores_of("stage1", records())).splitlines()[1]
    assert first == f"stage1,dev,overall,,5,2,0.400000,{low:.6f},{high:.6f},0,0,1,accuracy"


def test_with_several_seeds_questions_are_counted_once_and_the_accuracy_is_the_mean_over_all_answers() -> None:
    row = next(scores_of("stage2", [*of_seed(7, 0, 1), *of_seed(8, 0), *of_seed(9, 0, 1, 2)]))
    assert (row.num_questions, row.num_correct, row.num_seeds, row.accuracy) == (4, 6, 3, 0.5)
    assert (row.ci95_low, row.ci95_high) == bootstrap_interval([1.0, 2 / 3, 1 / 3, 0.0])


def test_a_score_between_right_and_wrong_keeps_its_name_and_counts_as_it_is() -> None:
    shares = [1.0, 0.5, 0.8, 0.0]
    lines = [
        record(index, split="test", subject=None, metric="anls", score=share, correct=share == 1)
        for index, share in enumerate(shares)
    ]
    row = next(scores_of("stage2", lines))
    assert (row.metric, row.num_correct, row.accuracy) == ("anls", 1, pytest.approx(0.575))
    assert (row.ci95_low, row.ci95_high) == bootstrap_interval(shares)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    text = scores_text([*scores_of("graft", records()), *scores_of("stage1", records())])
    (tmp_path / "t.csv").write_text(text)
    found = read_scores(tmp_path / "t.csv")
    assert scores_text(found) == text
    assert text.splitlines()[0] == ",".join(SCORE_COLUMNS) == (
        "model,split,group,name,num_questions,num_correct,accuracy,ci95_low,ci95_high,num_unparsed,num_truncated,"
        "num_seeds,metric"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("overall", "whole", "row 2: group is 'whole'; expected one of overall, discipline, subject"),
        (",2,0.400000", ",9,0.400000", "row 2: 9 correct of 5 answers"),
        ("0.400000", "0.600000", "row 2: accuracy 0.6 contradicts 2 correct of 5"),
        (",5,2,", ",five,2,", "row 2: num_questions is 'five'; expected a number"),
        ("0.117621", "0.500000", "row 2: accuracy 0.4 lies outside its interval"),
        ("num_seeds", "seeds", "no column `num_seeds` found"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = scores_text(scores_of("stage1", records()))
    assert old in text
    (tmp_path / "t.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as refusal:
        read_scores(tmp_path / "t.csv")
    assert message in str(refusal.value)


def test_the_overall_rows_are_shown_to_people() -> None:
    lines = overall_table(scores_of("stage1", records())).splitlines()
    assert lines[0].split() == [
        "model", "split", "questions", "seeds", "correct", "metric", "value", "95", "%", "interval", "unparsed",
        "truncated",
    ]  # fmt: skip
    assert [line.split() for line in lines[1:]] == [
        ["stage1", "dev", "5", "1", "2", "accuracy", "0.400", "0.118–0.769", "0", "0"],
        ["stage1", "test", "10", "1", "5", "accuracy", "0.500", "0.237–0.763", "0", "0"],
    ]


def test_scores_of_other_weights_than_a_stage_made_are_refused() -> None:
    models = ("graft", "stage1", "stage1-blind")
    found = Benchmark(
        "b", Path(), Path(), [], {}, {model: provenance(model, checkpoint_sha256="aa") for model in models}
    )
    check_same_weights(found, {"stage1": "aa", "stage2": "bb"}, Path("t.json"))
    with pytest.raises(UserError, match=r"t\.json: stage1 was asked with the weights aa, but stage1 made bb"):
        check_same_weights(found, {"stage1": "bb"}, Path("t.json"))
