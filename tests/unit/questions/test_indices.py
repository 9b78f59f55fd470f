"""Questions are ordered and named by their indices."""

from scripts.questions.indices import index_order, named


def test_numbers_come_first_and_by_value() -> None:
    assert sorted(["10", "b", "9", "a", "1/2"], key=index_order) == ["9", "10", "1/2", "a", "b"]


def test_of_many_questions_the_first_five_are_named() -> None:
    assert named(["7"]) == "1 question (7)"
    assert named(["12", "7", "1"]) == "3 questions (1, 7, 12)"
    assert named(str(number) for number in range(12)) == "12 questions (0, 1, 2, 3, 4, …)"
