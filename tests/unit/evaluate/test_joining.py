"""Records are made of answers that were given and judged once, by that very answer, or not at all."""

from typing import Any

import pytest

from helpers.evaluation_inputs import answer, judgement, question
from scripts.common.errors import UserError
from scripts.evaluate import joining
from scripts.evaluate.records import Record


def make_records(*inputs: Any) -> list[Record]:
    """Of seed 0, and a file of answers."""
    return joining.make_records(*inputs, 0, "answers.jsonl")


def test_a_right_answer_and_a_wrong_one_become_two_records() -> None:
    records = make_records(
        [question("0"), question("1")],
        [answer("1", "C."), answer("0", "B")],
        [judgement("0", "B"), judgement("1", "C.", "C")],
    )
    assert [(r.index, r.extracted, r.correct, r.status) for r in records] == [
        ("0", "B", True, "answered"),
        ("1", "C", False, "answered"),
    ]


def test_records_stand_in_the_order_of_their_indices_as_numbers() -> None:
    indices = ["10", "9", "b", "a"]
    records = make_records(
        [question(index) for index in indices],
        [answer(index) for index in indices],
        [judgement(index) for index in indices],
    )
    assert [record.index for record in records] == ["9", "10", "a", "b"]


def test_an_answer_without_an_option_is_wrong_and_counted_as_unparsed() -> None:
    (record,) = make_records(
        [question()], [answer(prediction="I see a cat")], [judgement(prediction="I see a cat", extracted=None)]
    )
    assert (record.extracted, record.correct, record.status) == (None, False, "unparsed")


def test_an_answer_that_vlmevalkit_takes_for_a_refusal_names_no_option() -> None:
    said = "Cannot determine the answer"
    (record,) = make_records([question()], [answer(prediction=said)], [judgement("0", said, "Z")])
    assert (record.extracted, record.correct, record.status) == (None, False, "unparsed")


def test_an_answer_cut_off_at_the_longest_length_is_truncated_even_with_an_option_in_it() -> None:
    (record,) = make_records([question()], [answer(finish_reason="length")], [judgement()])
    assert (record.correct, record.status) == (True, "truncated")


def test_an_answer_of_a_number_survives_the_way_through_a_table() -> None:
    (record,) = make_records([question()], [answer(prediction="2")], [judgement(prediction="2.0")])
    assert record.prediction == "2"


def test_an_answer_that_a_table_reads_as_absent_is_no_contradiction() -> None:
    (record,) = make_records([question()], [answer(prediction="None")], [judgement("0", "nan", None)])
    assert record.status == "unparsed"


def test_failed_questions_are_named_with_the_servers_reason() -> None:
    failed = answer("7", "Failed to obtain answer via API. ", error="HTTP 500: out of memory")
    with pytest.raises(UserError, match=r"1 question \(7\) of 2 failed at the server: HTTP 500: out of memory"):
        make_records([question("0"), question("7")], [answer("0"), failed], [judgement("0"), judgement("7")])


def test_a_failure_is_seen_in_the_text_of_the_answer_too() -> None:
    with pytest.raises(UserError, match="failed at the server"):
        make_records([question()], [answer(prediction="Failed to obtain answer via API.")], [judgement()])


def test_of_many_failed_questions_the_first_five_are_named() -> None:
    indices = [str(number) for number in range(12)]
    failed = [answer(index, "", error="timeout") for index in indices]
    with pytest.raises(UserError, match=r"12 questions \(0, 1, 2, 3, 4, …\) of 12 failed"):
        make_records([question(index) for index in indices], failed, [])


def test_a_question_that_was_never_answered_is_named() -> None:
    with pytest.raises(UserError, match=r"answers missing for 1 question \(1\)"):
        make_records([question("0"), question("1")], [answer("0")], [judgement("0"), judgement("1")])


def test_a_question_that_was_never_judged_is_named() -> None:
    with pytest.raises(UserError, match=r"judgements missing for 1 question \(1\)"):
        make_records([question("0"), question("1")], [answer("0"), answer("1")], [judgement("0")])


def test_a_doubled_judgement_is_refused() -> None:
    with pytest.raises(UserError, match=r"judgements doubled for 1 question \(0\)"):
        make_records([question("0")], [answer("0")], [judgement("0"), judgement("0")])


def test_a_judgement_of_a_question_that_was_not_asked_is_refused() -> None:
    with pytest.raises(UserError, match=r"judgements there for unknown 1 question \(5\)"):
        make_records([question("0")], [answer("0")], [judgement("0"), judgement("5")])


@pytest.mark.parametrize(
    "stale",
    [
        judgement(prediction="A", extracted="A"),  # of another answer altogether
        judgement(score=0.0),  # the right answer, counted as wrong
        judgement(log="Match Log: A. "),  # A was judged
        judgement(log="Match Log: Failed in Prefetch, no GPT-based answer matching under `exact_matching` policy.. "),
        judgement(extracted=None, score=1.0, log="Match Log: B. "),  # a hit where nothing is found
    ],
)
def test_a_judgement_of_another_answer_is_refused(stale) -> None:
    with pytest.raises(UserError, match="stale judgement"):
        make_records([question()], [answer()], [stale])


@pytest.mark.parametrize(("score", "is_correct"), [(0.0, False), (0.5, False), (0.99, False), (1.0, True)])
def test_an_answer_is_correct_at_the_full_score_alone(score: float, is_correct: bool) -> None:
    verdict = judgement(score=score, metric="anls", log=None)
    (record,) = make_records([question()], [answer()], [verdict])
    assert (record.score, record.correct, record.metric) == (score, is_correct, "anls")
