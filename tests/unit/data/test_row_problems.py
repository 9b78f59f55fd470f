"""What is wrong with a single row is named."""

from typing import Any

import pytest

from scripts.data.row_problems import message_problems, row_problems

USER, ASSISTANT = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}


@pytest.mark.parametrize(
    ("messages", "kinds"),
    [
        ([USER, ASSISTANT], []),
        ([{"role": "system", "content": ""}, USER, ASSISTANT], []),
        ([USER, {"role": "tool_call", "content": "f"}, {"role": "tool_response", "content": "1"}, ASSISTANT], []),
        ([USER], ["no assistant turn"]),
        ([USER, ASSISTANT | {"content": " \n"}], ["empty assistant turn"]),
        ([USER, ASSISTANT, USER], ["last turn is not the assistant's"]),
        ([USER, USER, ASSISTANT], ["turns do not alternate"]),
        ([ASSISTANT], []),
        ([ASSISTANT, ASSISTANT], ["turns do not alternate"]),
        ([{"role": "human", "content": "?"}, ASSISTANT], ["a message that ms-swift does not accept"]),
        ([USER | {"content": [{"type": "text", "text": "?"}]}, ASSISTANT], ["a message that ms-swift does not accept"]),
        (["?", ASSISTANT], ["a message that ms-swift does not accept"]),
        ([{"role": ["user"], "content": "?"}, ASSISTANT], ["a message that ms-swift does not accept"]),
        ([{"role": {}, "content": "?"}, ASSISTANT], ["a message that ms-swift does not accept"]),
        ([USER, None], ["a message that ms-swift does not accept"]),
        ([USER, ASSISTANT | {"loss": "false"}], ["a message that ms-swift does not accept"]),
        ([USER, ASSISTANT | {"loss": 0}], ["a message that ms-swift does not accept"]),
        ([USER, ASSISTANT | {"loss": True}], []),
        ([USER, ASSISTANT | {"loss": None}], []),
    ],
)
def test_a_conversation_is_trainable_or_its_problem_is_named(messages: list[Any], kinds: list[str]) -> None:
    assert [kind for kind, _ in message_problems(messages)] == kinds


@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        ({"messages": [USER, ASSISTANT]}, []),
        (["no", "object"], ["no messages"]),
        ({"messages": [USER | {"content": "<img>/0.png</img>?"}, ASSISTANT]}, ["a picture's path in the text"]),
        ({"messages": []}, ["no messages"]),
        ({"messages": [USER, ASSISTANT], "tools": "not json"}, ["tools that ms-swift does not accept"]),
        ({"messages": [USER, ASSISTANT], "tools": [5]}, ["tools that ms-swift does not accept"]),
        ({"messages": [USER, ASSISTANT], "tools": '[{"name": "f"}]'}, []),
        ({"messages": [USER, ASSISTANT], "tools": ['{"name": "f"}', {"name": "g"}]}, []),
        ({"messages": [USER, ASSISTANT], "images": ["/0.png"]}, ["number of pictures does not match"]),
        ({"messages": [USER | {"content": "<image>"}, ASSISTANT], "images": "/0.png"}, []),
        ({"messages": [USER | {"content": "<image>"}, ASSISTANT], "images": ["0.png"]}, ["picture path not absolute"]),
        ({"messages": [USER | {"content": "<image>"}, ASSISTANT], "images": [{}]}, ["picture path not absolute"]),
    ],
)
def test_a_row_is_trainable_or_its_problem_is_named(row: Any, kinds: list[str]) -> None:
    assert [kind for kind, _ in row_problems(row)] == kinds
