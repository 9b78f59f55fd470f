"""What a training row is: ms-swift's {"messages": [{"role", "content"}, ...], "images": [path, ...]}.

Each `<image>` in the text is the place of one picture of `images`, in order (ms-swift's documentation, "Custom dataset").
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

IMAGE_TAG = "<image>"


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class Row(TypedDict, total=False):
    """A training row; one without pictures has no `images`."""

    messages: list[Message]
    images: list[str]


def _text_of(message: Any) -> str | None:
    """A turn's text; None where the user's file has something else in its place, which the check of the rows refuses."""
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, str) else None


def count_image_tags(messages: Sequence[Message]) -> int:
    """How many pictures the text of a conversation has places for."""
    return sum((_text_of(message) or "").count(IMAGE_TAG) for message in messages)


def with_all_image_tags(messages: Sequence[Message], num_images: int) -> list[Message]:
    """The conversation with its missing tags in front of the first message, where ms-swift would put them."""
    num_missing = num_images - count_image_tags(messages)
    if num_missing <= 0 or _text_of(messages[0]) is None:
        return list(messages)
    first: Message = {**messages[0], "content": IMAGE_TAG * num_missing + messages[0]["content"]}
    return [first, *messages[1:]]


def standard_row(messages: Sequence[Message], images: Sequence[Any]) -> Row:
    """A row as training reads it; one without pictures has no `images`."""
    row: Row = {"messages": with_all_image_tags(messages, len(images)) if messages else []}
    if images:
        row["images"] = list(images)
    return row
