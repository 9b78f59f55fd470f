"""What is wrong with one training row by itself; its pictures are not opened."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from scripts.common.json_text import json_value
from scripts.data.rows import IMAGE_TAG, count_image_tags

# Roles that ms-swift accepts (swift/dataset/preprocessor/core.py: _check_messages).
ROLES = {"system", "user", "assistant", "tool", "tool_call", "tool_response"}

# ms-swift puts the file in its place, or nothing where there is no such file.
_PICTURE_IN_TEXT = re.compile("<img>.+?</img>")


def message_problems(messages: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a conversation, as (kind, detail)."""
    for number, message in enumerate(messages, start=1):
        role = message.get("role") if isinstance(message, dict) else None
        is_known = isinstance(role, str) and role in ROLES
        if not is_known or not isinstance(message.get("content"), str):
            found = f"content of type {type(message.get('content')).__name__}" if is_known else f"role {role!r}"
            yield "a message that ms-swift does not accept", f"message {number}: {found}"
            return
        # ms-swift takes "false" for true, and 0 for a loss of no answer.
        if not isinstance(message.get("loss"), bool | None):
            found = f"loss {message['loss']!r}; expected true or false"
            yield "a message that ms-swift does not accept", f"message {number}: {found}"
            return
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        yield "no assistant turn", f"roles: {', '.join(roles)}"
        return
    if any(message["role"] == "assistant" and not message["content"].strip() for message in messages):
        yield "empty assistant turn", ""
    if roles[-1] != "assistant":
        yield "last turn is not the assistant's", f"last role: {roles[-1]}"
    turns = roles[1:] if roles[0] == "system" else roles
    plain = not any("tool" in role for role in turns)
    # A row may begin with an answer: texts to read on from are written so.
    if plain and any(turn == following for turn, following in pairwise(turns)):
        yield "turns do not alternate", f"roles: {', '.join(roles)}"


def _are_tools(tools: Any) -> bool:
    """None, or descriptions of functions, each as an object or as JSON text of one, as a list or as JSON text of that."""
    if isinstance(tools, str):
        try:
            tools = json_value(tools)
        except ValueError:
            return False
    if tools is None:
        return True
    described = tools if isinstance(tools, list) else [tools]
    return all(isinstance(tool, dict) or (isinstance(tool, str) and _are_tools(tool)) for tool in described)


def row_problems(row: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with a row, as (kind, detail)."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        yield "no messages", ""
        return
    if not _are_tools(row.get("tools")):
        yield "tools that ms-swift does not accept", f"{row['tools']!r:.60}"
    problems = list(message_problems(messages))
    yield from problems
    images = images_of(row)
    if "a message that ms-swift does not accept" not in dict(problems):
        num_tags = count_image_tags(messages)
        if num_tags != len(images):
            yield "number of pictures does not match", f"{len(images)} pictures, {num_tags} {IMAGE_TAG} in the text"
        if not images and any(_PICTURE_IN_TEXT.search(message["content"]) for message in messages):
            yield "a picture's path in the text", "<img>…</img>"
    for image in images:
        if not isinstance(image, str):
            yield "picture path not absolute", f"{type(image).__name__} found"
        elif not Path(image).is_absolute():
            yield "picture path not absolute", image


def images_of(row: dict[str, Any]) -> list[Any]:
    images = row.get("images") or []
    return images if isinstance(images, list) else [images]
