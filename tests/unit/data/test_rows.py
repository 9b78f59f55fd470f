"""A row as training reads it: a tag in the text for each picture."""

from helpers.training_rows import row_of
from scripts.data.rows import IMAGE_TAG, standard_row


def test_tags_that_the_text_lacks_are_put_before_the_first_message() -> None:
    messages = [{"role": "user", "content": f"which of {IMAGE_TAG} these?"}, {"role": "assistant", "content": "B"}]
    row = standard_row(messages, ["0.png", "1.png"])
    assert row["messages"][0]["content"] == f"{IMAGE_TAG}which of {IMAGE_TAG} these?"
    assert messages[0]["content"] == f"which of {IMAGE_TAG} these?", "the caller's row is left as it was"


def test_tags_go_after_the_systems_message() -> None:
    system, user = {"role": "system", "content": "You help."}, {"role": "user", "content": "what?"}
    answer = {"role": "assistant", "content": "B"}
    assert standard_row([system, user, answer], ["0.png"])["messages"] == [
        system,
        {"role": "user", "content": f"{IMAGE_TAG}what?"},
        answer,
    ]


def test_a_first_message_without_text_gets_its_tags_and_what_is_no_message_stays_as_it_is() -> None:
    answer = {"role": "assistant", "content": "B"}
    assert standard_row([{"role": "user", "content": ""}, answer], ["0.png"])["messages"][0]["content"] == IMAGE_TAG
    for rubbish in ("a", 5, None, ["content"], {"content": 5}):
        assert standard_row([rubbish, answer], ["0.png"])["messages"] == [rubbish, answer]  # type: ignore[list-item]


def test_a_row_without_pictures_has_no_images_key() -> None:
    assert "images" not in standard_row(row_of("a", [])["messages"], [])
