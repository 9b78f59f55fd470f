"""What a training row is: ms-swift's {"messages": [{"role", "content"}, ...], "images": [path, ...]}.

Each `<image>` in the text is the place of one picture of `images`, in order (ms-swift's documentation, "Custom dataset").
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

IMAGE_TAG = "<image>"


class Message(TypedDict):
    """One turn of a conversation; `loss` or `loss_scale` may stand beside these two."""

    role: str
    content: str


class Row(TypedDict, total=False):
    """A training row; one without pictures has no `images`, one that names no objects no `objects`, and so on."""

    messages: list[Message]
    images: list[str]
    objects: dict[str, Any]
    tools: list[Any]
    channel: str
    chat_template_kwargs: dict[str, Any]


def _text_of(message: Any) -> str | None:
    """A turn's text; None where the user's file has something else in its place, which the check of the rows refuses."""
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, str) else None


def count_image_tags(messages: Sequence[Message]) -> int:
    """How many pictures the text of a conversation has places for."""
    return sum((_text_of(message) or "").count(IMAGE_TAG) for message in messages)


def with_all_image_tags(messages: Sequence[Message], num_images: int) -> list[Message]:
    """The conversation with its missing tags in front of the first turn after the system's, where ms-swift would put them."""
    num_missing = num_images - count_image_tags(messages)
    place = int(isinstance(messages[0], Mapping) and messages[0].get("role") == "system" and len(messages) > 1)
    if num_missing <= 0 or _text_of(messages[place]) is None:
        return list(messages)
    tagged: Message = {**messages[place], "content": IMAGE_TAG * num_missing + messages[place]["content"]}
    return [*messages[:place], tagged, *messages[place + 1 :]]


def standard_row(messages: Sequence[Message], images: Sequence[Any], others: Mapping[str, Any] | None = None) -> Row:
    """A row as training reads it, with what else it has (`others`); one without pictures has no `images`."""
    row: dict[str, Any] = {"messages": with_all_image_tags(messages, len(images)) if messages else []}
    if images:
        row["images"] = list(images)
    return cast(Row, row | {key: value for key, value in (others or {}).items() if key not in ("messages", "images")})
