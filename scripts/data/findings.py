"""What the rows of a prepared dataset hold, and what is wrong with them, each by itself."""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.json_text import json_value
from scripts.data.row_problems import ROLES, images_of, row_problems
from scripts.data.rows import IMAGE_TAG
from scripts.data.training_encoding import NOT_ENCODED, NOTHING_TRAINED, TOKEN_IN_TEXT, TOO_LONG, TOO_THIN

MAX_SHOWN_PER_KIND = 20

# The kinds of problem, in the order in which they are reported, each with its remedy.
REMEDIES = {
    "not valid JSON": "write one JSON object per line",
    "no messages": 'give "messages": [{"role": ..., "content": ...}, ...]',
    "a message that ms-swift does not accept": f"give each message a role ({', '.join(sorted(ROLES))}) and text",
    "tools that ms-swift does not accept": "give a list of objects, or JSON text of one",
    "no assistant turn": "add what the model is to answer; such a row trains nothing",
    "empty assistant turn": "fill in the answer or drop the row",
    "last turn is not the assistant's": "end the row with the answer",
    "turns do not alternate": "after the system message alternate user and assistant",
    "number of pictures does not match": f"give one {IMAGE_TAG} in the text for each picture",
    "a picture's path in the text": f"name it in `images`, with {IMAGE_TAG} in the text",
    "picture path not absolute": "prepare the rows with scripts/data/prepare_dataset.py, which makes paths absolute",
    "picture not found": "restore the file or drop the row",
    "picture unreadable": "replace the file or drop the row",
    TOKEN_IN_TEXT: "write it in other words: the model would read it as the token itself",
    TOO_LONG: "shorten the row, or set flags.max_length higher",
    TOO_THIN: "crop the picture, or set MAX_PIXELS higher",
    NOTHING_TRAINED: "give it an answer that is trained (no `loss: false` on all of them, none cut off)",
    NOT_ENCODED: "correct the row, or drop it",
}


@dataclass
class Findings:
    """What the rows of a dataset hold, and what is wrong with them, by kind, as (row number, detail)."""

    num_rows: int = 0
    num_duplicate_rows: int = 0
    num_assistant_turns: int = 0
    num_picture_references: int = 0
    rows_of_picture: "dict[str, array[int]]" = field(default_factory=lambda: defaultdict(lambda: array("Q")))
    problems: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    def bad_rows(self) -> dict[int, str]:
        """What is wrong with each row that cannot be trained on: the first problem that was found of it."""
        bad: dict[int, str] = {}
        for kind in REMEDIES:
            for number, detail in self.problems.get(kind, []):
                bad.setdefault(number, f"{kind}: {detail}" if detail else kind)
        return bad


def read_rows(dataset_path: Path) -> Findings:
    """Reads all rows and checks each by itself."""
    findings = Findings()
    digests = array("Q")  # eight bytes a row, of millions of rows
    with open(dataset_path, "rb") as file:
        for number, line in enumerate(file, start=1):
            findings.num_rows += 1
            digests.frombytes(hashlib.blake2b(line.strip(), digest_size=digests.itemsize).digest())
            try:
                row = json_value(line)
            except ValueError as error:
                findings.problems["not valid JSON"].append((number, str(error)))
                continue
            for kind, detail in row_problems(row):
                findings.problems[kind].append((number, detail))
            if not isinstance(row, dict):
                continue
            count_row(findings, number, row)
    findings.num_duplicate_rows = findings.num_rows - len(np.unique(np.frombuffer(digests, dtype=np.uint64)))
    return findings


def count_row(findings: Findings, number: int, row: dict[str, Any]) -> None:
    messages = row.get("messages") if isinstance(row.get("messages"), list) else []
    findings.num_assistant_turns += sum(isinstance(m, dict) and m.get("role") == "assistant" for m in messages or [])
    paths = [image for image in images_of(row) if isinstance(image, str)]
    findings.num_picture_references += len(paths)
    for path in dict.fromkeys(paths):
        findings.rows_of_picture[path].append(number)


def describe_problems(dataset_path: Path, findings: Findings, place: Callable[[int], str]) -> str:
    """All kinds of problem with their first rows and their remedies. `place` says where a row is from."""
    lines = [f"{dataset_path}: {len(findings.bad_rows())} of {findings.num_rows} rows cannot be trained on"]
    for kind, remedy in REMEDIES.items():
        found = sorted(findings.problems.get(kind, []))
        if not found:
            continue
        lines.append(f"  {kind}: {len(found)} (remedy: {remedy})")
        lines += [
            f"    {place(number)}" + (f": {detail}" if detail else "") for number, detail in found[:MAX_SHOWN_PER_KIND]
        ]
        if len(found) > MAX_SHOWN_PER_KIND:
            lines.append(f"    and {len(found) - MAX_SHOWN_PER_KIND} more")
    return "\n".join(lines)
