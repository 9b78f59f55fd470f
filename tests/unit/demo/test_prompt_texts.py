"""The demo's question is worded once; everything that must agree on it takes it from there."""

import random

from scripts.demo.prompt_texts import (
    ANSWER_END,
    DIGIT_NAMES,
    LETTERS,
    discipline_of,
    draw_options,
    picture_text,
    question_text,
    subject_of,
    text_before_answer,
)

# What pandas reads as a missing value by default; VLMEvalKit would leave such an option out of the question.
READ_AS_MISSING = {"", "#N/A", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}


def test_the_question_is_worded_as_vlmevalkit_words_a_row() -> None:
    assert question_text(["3", "5", "7", "0"]) == (
        "Question: Which digit?\nOptions:\nA. 3\nB. 5\nC. 7\nD. 0\n"
        "Please select the correct answer from the options above. \n"
    )


def test_the_conversation_has_the_system_prompt_and_ends_where_the_answer_begins() -> None:
    assert text_before_answer("Hi") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_answer_ends_with_the_line_break_that_the_loss_covers() -> None:
    assert ANSWER_END == "<|im_end|>\n"


def test_a_picture_has_one_placeholder_a_token() -> None:
    assert picture_text(2) == "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"


def test_options_are_distinct_digits_and_hold_the_true_one() -> None:
    rng = random.Random(0)
    for digit in range(10):
        options = draw_options(digit, rng)
        assert len(set(options)) == len(LETTERS) and str(digit) in options
        assert set(options) <= {str(other) for other in range(10)}


def test_the_true_option_stands_at_every_place_about_equally_often() -> None:
    rng = random.Random(0)
    places = [draw_options(7, rng).index("7") for _ in range(4000)]
    assert all(900 < places.count(place) < 1100 for place in range(4))


def test_options_repeat_with_the_same_random_state() -> None:
    assert [draw_options(1, random.Random(5)) for _ in range(3)] == [draw_options(1, random.Random(5))] * 3


def test_every_digit_has_a_subject_and_a_discipline_that_are_not_read_as_missing() -> None:
    assert [subject_of(digit) for digit in range(10)] == list(DIGIT_NAMES)
    assert {discipline_of(digit) for digit in range(10)} == {"with a loop", "without a loop"}
    words = {subject_of(digit) for digit in range(10)} | {discipline_of(digit) for digit in range(10)}
    assert not words & READ_AS_MISSING
