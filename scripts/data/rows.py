"""What a training row is: ms-swift's {"messages": [{"role", "content"}, ...], "images": [path, ...]}.

Each `<image>` in the text stands for one picture of `images`, in order (ms-swift's documentation, "Custom dataset").
"""

from collections.abc import Sequence
from typing import Any

IMAGE_TAG = "<image>"


def count_image_tags(messages: Sequence[dict[str, Any]]) -> int:
    """How many pictures the text of a conversation calls for."""
    return sum(message["content"].count(IMAGE_TAG) for message in messages if isinstance(message.get("content"), str))


def with_all_image_tags(messages: Sequence[dict[str, Any]], num_images: int) -> list[dict[str, Any]]:
    """The conversation with the tags that it lacks in front of its first message, where ms-swift would put them."""
    num_missing = num_images - count_image_tags(messages)
    if num_missing <= 0 or not isinstance(messages[0].get("content"), str):
        return list(messages)
    return [messages[0] | {"content": IMAGE_TAG * num_missing + messages[0]["content"]}, *messages[1:]]
