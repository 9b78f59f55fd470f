"""Models stand in one table if they were asked the same questions about the same pictures."""

from pathlib import Path
from typing import Any

import pytest

from helpers.evaluation_inputs import record, records
from scripts.common.errors import UserError
from scripts.evaluate.records import Record
from scripts.evaluate.same_questions import check_same_questions

SHUFFLED = [record(index, image_sha256=str((index + 1) % 15)) for index in range(15)]


def check(**models: list[Record]) -> None:
    """Models by name, with _ in place of -."""
    named = {name.replace("_", "-"): found for name, found in models.items()}
    check_same_questions(named, {name: Path(f"{name}.jsonl") for name in named})


def refused(**models: list[Record]) -> str:
    with pytest.raises(UserError) as refusal:
        check(**models)
    return str(refusal.value)


def test_the_same_questions_and_controls_of_them_are_accepted() -> None:
    blind = records(image_sha256=None)
    check(
        graft=records(),
        stage1=records(correct=True),
        graft_shuffled=SHUFFLED,
        stage1_shuffled=SHUFFLED,
        graft_blind=blind,
    )
    check(graft_shuffled=SHUFFLED, stage1_shuffled=SHUFFLED)
    check(graft_shuffled=SHUFFLED, graft_blind=blind)


@pytest.mark.parametrize(
    "changes",
    [
        {"split": "dev"},
        {"discipline": None},
        {"subject": "other"},
        {"question": "Who?"},
        {"options": {"A": "2", "B": "1"}},
        {"answer": "A"},
        {"metric": "anls"},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("model", ["stage1", "graft_shuffled"])
def test_a_question_that_changed_is_named(changes: dict[str, Any], model: str) -> None:
    pictures = SHUFFLED[14].image_sha256 if model == "graft_shuffled" else "14"
    others = SHUFFLED if model == "graft_shuffled" else records()
    message = refused(graft=records(), **{model: [*others[:14], record(14, **{"image_sha256": pictures, **changes})]})
    assert message.startswith(f"{model.replace('_', '-')}.jsonl: the {next(iter(changes))} of question 14 is ")


def test_a_question_that_one_model_lacks_is_named_with_the_file_that_lacks_it() -> None:
    expected = "stage1.jsonl: no record of question 14 (seed 0), which graft.jsonl has (1 such)"
    assert refused(graft=records(), stage1=records()[:14]).startswith(expected)
    expected = "graft.jsonl: no record of question 14 (seed 0), which stage1.jsonl has (1 such)"
    assert refused(graft=records()[:14], stage1=records()).startswith(expected)


def test_another_seed_is_another_question() -> None:
    assert "no record of question 0 (seed 0)" in refused(graft=records(), stage1=records(seed=1))


def test_another_picture_is_refused_except_under_a_control() -> None:
    other = [*records()[:14], record(14, image_sha256="cd")]
    assert refused(graft=records(), stage1=other).startswith(
        "stage1.jsonl: question 14 was asked with another picture than in graft.jsonl"
    )


def test_two_models_under_one_control_need_the_same_pictures() -> None:
    others = [*SHUFFLED[:14], record(14, image_sha256="cd")]
    assert refused(graft=records(), graft_shuffled=SHUFFLED, stage1_shuffled=others).startswith(
        "stage1-shuffled.jsonl: question 14 was asked with another picture than in graft-shuffled.jsonl"
    )


def test_a_control_about_the_very_pictures_is_none() -> None:
    assert "this is no control" in refused(graft=records(), graft_shuffled=records())
