"""EvalScope's samples (native backend) as rows of a benchmark's table, and back.

A row has the columns of any benchmark (index, question, options, answer, pictures), so that pages and controls read one
format. Its column `sample` holds EvalScope's own object without the pictures, from which it is made again bit for bit.
A table of the user's own has no such column: its rows become samples by the prompts of the configuration.
"""

import ast
import base64
import json
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.common.errors import UserError
from scripts.common.json_text import json_value
from scripts.questions.pictures import picture_field

# Marks the place of a picture in a sample. `data:image/png;base64,` is kept in front of it, since it is sent along.
PICTURE_MARK = "picture:"

# The EvalScope adapters that parse and score a table of the user's own: letters, and ANLS over the accepted answers.
OWN_CHOICE_ADAPTER = "general_vmcq"
OWN_OPEN_ADAPTER = "docvqa"
OWN_SUBSET = "own"


@dataclass(frozen=True)
class AskedSample:
    """A sample with the index of its question and EvalScope's subset."""

    index: str
    subset: str
    sample: Any  # evalscope.api.dataset.Sample


def letters_of(row: Mapping[str, str]) -> list[str]:
    """The letters of a row's options, in order."""
    return [letter for letter in string.ascii_uppercase if row.get(letter)]


def own_adapter(rows: Sequence[Mapping[str, str]], where: str) -> str:
    """EvalScope's adapter for a table of the user's own; raises UserError when choices and open questions are mixed."""
    are_open = {not letters_of(row) for row in rows}
    if are_open == {True, False}:
        examples = {bool(letters_of(row)): row["index"] for row in rows}
        raise UserError(
            f"{where}: question {examples[True]} has options and question {examples[False]} has none; expected one kind in "
            "a table, since they are scored differently; make two tables of it"
        )
    return OWN_OPEN_ADAPTER if are_open == {True} else OWN_CHOICE_ADAPTER


def row_of(index: str, subset: str, split: str, sample: Any) -> dict[str, str]:
    """The row of one sample; raises UserError when it holds what a row cannot (a URL in place of a picture, a video)."""
    content = json.loads(sample.model_dump_json(exclude_none=True))
    pictures: list[str] = []
    texts: list[str] = []
    for message in content["input"]:
        message.pop("id", None)  # EvalScope draws it at random
        parts = (
            message["content"]
            if isinstance(message["content"], list)
            else [{"type": "text", "text": message["content"]}]
        )
        for part in parts:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image" and part["image"].startswith("data:"):
                header, _, data = part["image"].partition(",")
                part["image"] = f"{header},{PICTURE_MARK}{len(pictures)}"
                pictures.append(data)
            else:
                raise UserError(
                    f"question {index}: {part['type']} that is not given as bytes; expected text and pictures; this "
                    "benchmark cannot be asked here"
                )
    choices = dict(zip(string.ascii_uppercase, sample.choices or [], strict=False))
    target = sample.target if isinstance(sample.target, str) else json.dumps(sample.target)
    return {
        "index": index,
        "split": split,
        "category": subset,
        "question": "".join(texts),
        **{letter: str(text) for letter, text in choices.items()},
        "answer": target,
        "image": picture_field(pictures),
        "subset": subset,
        "sample": json.dumps(content, ensure_ascii=False),
    }


def pictures_in(message: Mapping[str, Any], pictures: Sequence[str], *, is_blind: bool) -> dict[str, Any]:
    """A message with its pictures back in their places, or without any."""
    if not isinstance(message["content"], list):
        return dict(message)
    parts = []
    for part in message["content"]:
        if part["type"] == "image":
            if is_blind:
                continue
            header, _, mark = part["image"].partition(",")
            part = {**part, "image": f"{header},{pictures[int(mark.removeprefix(PICTURE_MARK))]}"}
        parts.append(part)
    return {**message, "content": parts}


def samples_of(
    rows: Sequence[Mapping[str, str]],
    pictures: Sequence[Sequence[str]],
    prompt: Callable[[str, Mapping[str, str]], str],
    *,
    is_blind: bool,
) -> Iterator[AskedSample]:
    """The samples of a table with these pictures; `id` is the number of the row, by which EvalScope's score is found.

    `prompt` makes the text of a row of the user's own table from its question and its options by letter.
    """
    from evalscope.api.dataset import Sample
    from evalscope.api.messages import ChatMessageUser, ContentImage, ContentText

    for number, (row, shown) in enumerate(zip(rows, pictures, strict=True)):
        if row.get("sample"):
            content = json_value(row["sample"])
            content["input"] = [pictures_in(message, shown, is_blind=is_blind) for message in content["input"]]
            content |= {"id": number, "group_id": number}
            yield AskedSample(row["index"], row["subset"], Sample.model_validate(content))
            continue
        letters = letters_of(row)
        parts: list[Any] = [] if is_blind else [ContentImage(image=data_url(picture)) for picture in shown]
        parts.append(ContentText(text=prompt(row["question"], {letter: row[letter] for letter in letters})))
        yield AskedSample(
            row["index"],
            OWN_SUBSET,
            Sample(
                input=[ChatMessageUser(content=parts)],
                choices=[row[letter] for letter in letters] or None,
                target=row["answer"] if letters else json.dumps(accepted_answers(row["answer"]), ensure_ascii=False),
                id=number,
                group_id=number,
            ),
        )


def accepted_answers(field: str) -> list[str]:
    """The accepted answers of an open question: a list in Python's or JSON's form, or the one answer."""
    if field.startswith("["):
        try:
            return [str(answer) for answer in ast.literal_eval(field)]
        except (ValueError, SyntaxError):
            pass
    return [field]


def data_url(picture: str) -> str:
    """The picture with its type in front, as a request holds it."""
    data = base64.b64decode(picture[:64])
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
    kind = next((kind for start, kind in kinds.items() if data.startswith(start)), "png")
    return f"data:image/{kind};base64,{picture}"
