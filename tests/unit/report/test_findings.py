"""What the report says in words about a score table, and what it warns of."""

import dataclasses
from pathlib import Path

import pytest

from helpers.report_inputs import wilson
from scripts.evaluate.records import Record
from scripts.evaluate.scores import Benchmark, Score
from scripts.graft.ledger import LedgerSum
from scripts.report.findings import Headline, best_row, chance_level, headline, pair_tables, warnings
from scripts.report.numbers import p_value, points
from scripts.train.losses import LossPoint
from scripts.train.metrics import Metrics, StepTimes

NUM_QUESTIONS = 400


def record(index: int, num_options: int) -> Record:
    options = dict(zip("ABCDEFGH"[:num_options], "abcdefgh", strict=False))
    return Record(
        str(index), "test", None, None, "Which?", options, "A", "A", "A", 1.0, True, "accuracy", "answered", 0, "0"
    )


def answered_right(given: Record, is_right: bool) -> Record:
    return dataclasses.replace(given, correct=is_right, score=float(is_right))


def score(model: str, share: float, num_unparsed: int = 0, split: str = "test") -> Score:
    num_correct = round(share * NUM_QUESTIONS)
    low, high = wilson(num_correct, NUM_QUESTIONS)
    accuracy = num_correct / NUM_QUESTIONS
    return Score(
        model=model,
        split=split,
        group="overall",
        name="",
        num_questions=NUM_QUESTIONS,
        num_correct=num_correct,
        accuracy=accuracy,
        ci95_low=low,
        ci95_high=high,
        num_unparsed=num_unparsed,
        num_truncated=0,
        num_seeds=1,
        metric="accuracy",
    )


def benchmark(*scores: Score, num_options: int = 4) -> Benchmark:
    records = {scores[0].model: [record(index, num_options) for index in range(NUM_QUESTIONS)]}
    return Benchmark("digits", Path("test.tsv"), Path("digits.csv"), list(scores), records, {})


def said(*scores: Score, num_options: int = 4) -> str:
    found: Headline = headline(benchmark(*scores, num_options=num_options))
    return " ".join([found.result, *found.context]).replace("\u202f", " ").replace("\u2060", "")


@pytest.fixture
def metrics() -> Metrics:
    modules = {"vision_tower": 10, "aligner": 5}
    return Metrics(
        stage="stage1",
        num_steps=2,
        num_processes=1,
        num_rows=8,
        num_rows_left_out_each_epoch=0,
        num_samples_seen=8,
        num_samples_expected=8,
        num_tokens_seen=80,
        num_parameters=modules,
        num_trainable_parameters={"vision_tower": 0, "aligner": 5},
        tensors_changed={"vision_tower": 0, "aligner": 5},
        tensors_total=modules,
        tensors_trained_but_unchanged=[],
        first_loss=1.0,
        last_loss=0.5,
        losses=[LossPoint(1, 1.0, None, None), LossPoint(2, 0.5, None, None)],
        step_time_s=StepTimes(1.0, 1.0),
        num_tokens_per_s=None,
        peak_gpu_memory_gib=None,
        wall_time_s=2.0,
        resumes=[],
        versions={},
        command=[],
        signature="0",
        checkpoint_sha256="0",
        settings_sha256="0",
    )


def test_a_score_between_right_and_wrong_is_called_by_its_name_and_seeds_are_counted() -> None:
    text = said(dataclasses.replace(score("stage2", 0.5), metric="anls", num_seeds=3), num_options=0)
    assert text.startswith("stage2 scores 50.0 % (anls) on 400 digits questions (95 % interval ")
    assert "mean of 3 seeds)." in text


def test_the_headline_gives_accuracy_interval_chance_and_control() -> None:
    text = said(score("graft", 0.25), score("stage2", 0.98), score("stage2-shuffled", 0.26))
    assert text.startswith("stage2 answers 98.0 % of 400 digits questions correctly (95 % interval 96.1–99.0).")
    assert "Guessing would give 25.0 %." in text
    assert "it falls to 26.0 % (95 % interval 21.9–30.5), so its answers come from the pictures" in text


def test_a_result_whose_interval_holds_chance_is_not_called_better_than_guessing() -> None:
    assert "does not differ from guessing" in said(score("stage1", 0.28))


def test_a_control_that_does_as_well_takes_the_claim_back() -> None:
    overlapping = said(score("stage2", 0.60), score("stage2-shuffled", 0.57))
    assert "does not show that the pictures were used" in overlapping
    assert "come from the pictures" not in overlapping
    better = said(score("stage2", 0.60), score("stage2-shuffled", 0.66))
    assert "no less: nothing here shows that the pictures were used" in better


def test_without_a_control_of_the_best_model_nothing_is_claimed_about_pictures() -> None:
    assert "No control with shuffled pictures or without any was run" in said(score("stage2", 0.9))
    other = said(score("stage1", 0.5), score("stage2", 0.9), score("stage1-shuffled", 0.25))
    assert "run for stage1 only, so nothing here shows that stage2 used the pictures" in other


def test_both_controls_of_the_best_model_are_compared_with_it() -> None:
    text = said(score("stage2", 0.9), score("stage2-shuffled", 0.25), score("stage2-blind", 0.9))
    assert "With the pictures shuffled among the questions, it falls to 25.0 %" in text
    assert "Asked without pictures, it reaches 90.0 %" in text and "no less: nothing here shows" in text


def test_models_are_compared_question_by_question_and_controls_with_their_own_model_alone() -> None:
    models = ("graft", "stage2", "stage2-shuffled", "stage2-blind", "graft-blind")
    made = benchmark(*(score(model, 0.5) for model in models))
    right = {"graft": 100, "stage2": 300}
    for model in models:
        made.records[model] = [
            answered_right(record(index, 4), index < right.get(model, 50))
            # another order, as a file may have it
            for index in reversed(range(NUM_QUESTIONS))
        ]
    made.records["stage2"].reverse()
    (table,) = pair_tables(made)
    assert [(first, second) for first, second, _ in table.rows] == [
        ("graft", "stage2"), ("graft", "graft-blind"), ("stage2", "stage2-blind"), ("stage2", "stage2-shuffled"),
    ]  # fmt: skip
    gained = table.rows[0][2]
    assert (gained.num_both, gained.num_first_only, gained.num_second_only, gained.num_neither) == (100, 0, 200, 100)


def test_models_whose_seeds_scored_alike_in_another_order_are_equally_good() -> None:
    made = benchmark(score("graft", 0.5), score("stage2", 0.5))
    shares = {"graft": (0.1, 0.2, 0.3), "stage2": (0.3, 0.2, 0.1)}  # whose sums differ by rounding
    for model, each in shares.items():
        made.records[model] = [
            dataclasses.replace(record(0, 4), score=share, correct=False, seed=seed) for seed, share in enumerate(each)
        ]
    ((_, _, pair),) = pair_tables(made)[0].rows
    assert (pair.num_questions, pair.num_both, pair.difference) == (1, 1, 0.0)


def test_one_model_is_compared_with_nothing() -> None:
    assert pair_tables(benchmark(score("stage2", 0.5))) == []


@pytest.mark.parametrize(
    ("difference", "text"), [(0.0525, "+5.2"), (-0.5, "−50.0"), (0.0, "0.0"), (-0.0001, "0.0"), (1.0, "+100.0")]
)
def test_a_difference_has_its_sign_in_points(difference: float, text: str) -> None:
    assert points(difference) == text


@pytest.mark.parametrize(("p", "text"), [(1.0, "1.000"), (0.0312, "0.031"), (0.00407, "0.0041"), (1e-9, "<0.0001")])
def test_a_p_value_is_never_zero(p: float, text: str) -> None:
    assert p_value(p) == text


def test_neither_the_parent_nor_a_control_is_the_best_row_but_the_parent_is_compared() -> None:
    rows = [score("parent", 0.99), score("stage1", 0.5), score("stage2", 0.7)]
    assert best_row(rows) == rows[2]
    assert "The parent model, in the same harness, reaches 99.0 %" in said(*rows)
    assert "clearly more" in said(*rows)


def test_a_best_row_that_is_not_the_last_is_pointed_out() -> None:
    text = said(score("stage1", 0.9), score("stage2", 0.7))
    assert "It is the best row, not the last: stage2 reaches 70.0 %" in text
    assert "not the last" not in said(score("stage1", 0.7), score("stage2", 0.9))


def test_of_several_splits_the_largest_is_in_the_headline_by_name() -> None:
    small = dataclasses.replace(score("stage2", 1.0, split="dev"), num_questions=10, num_correct=10)
    assert "of 400 digits (test) questions" in said(small, score("stage2", 0.5))


def test_chance_is_the_mean_of_one_over_the_number_of_options() -> None:
    assert chance_level([record(0, 2), record(1, 4)]) == (0.375, 0)
    assert chance_level([record(0, 4), record(1, 0)]) == (0.125, 1)
    assert chance_level([record(0, 0)]) == (None, 1)


def test_a_sound_run_has_no_warning(metrics: Metrics) -> None:
    assert warnings([benchmark(score("stage2", 0.9, num_unparsed=20))], [metrics], [], is_dirty=False) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_samples_seen": 7}, "7 samples were seen, 8 were expected"),
        ({"losses": [LossPoint(1, float("nan"), None, None)]}, "not a finite number at 1 logged steps"),
        ({"tensors_changed": {"vision_tower": 1, "aligner": 5}}, "1 tensors of the frozen vision tower changed"),
        ({"tensors_changed": {"vision_tower": 0, "aligner": 4}}, "only 4 of its 5 tensors changed"),
    ],
)
def test_a_stage_that_did_something_odd_is_warned_of(
    metrics: Metrics, changes: dict[str, object], expected: str
) -> None:
    (warning,) = warnings([], [dataclasses.replace(metrics, **changes)], [], is_dirty=False)  # type: ignore[arg-type]
    assert expected in warning


def test_many_unparsed_answers_and_uncommitted_code_are_warned_of() -> None:
    found = warnings([benchmark(score("stage2", 0.9, num_unparsed=21))], [], [], is_dirty=True)
    assert len(found) == 2
    assert "uncommitted" in found[0]
    assert "21 of 400 answers" in found[1]


def test_what_the_graft_dropped_of_the_language_donor_is_warned_of() -> None:
    ledger = [LedgerSum("dropped", "vl", 15, 500, []), LedgerSum("dropped", "llm", 72, 18432, ["architecture"])]
    assert [text.replace("\u202f", " ") for text in warnings([], [], ledger, is_dirty=False)] == [
        "The graft left out 72 tensors of the language donor (18.43 kB)."
    ]
