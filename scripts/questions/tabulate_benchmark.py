"""Makes the table that is asked from your own benchmark: a list (.jsonl) or a table (.tsv), with pictures as a person sees them.

A list has a JSON object a line, with the paths of its pictures:

  {"question": "Which digit?", "images": ["pictures/7.png"], "options": ["1", "7"], "answer": "B", "category": "seven"}
  {"question": "Who signed it?", "images": ["letter.jpg"], "answer": ["Ada Lovelace", "Lovelace"]}

`images` are relative to the list. Without `options` the question is open, and `answer` is an answer or several accepted ones.
`index` (else the number of the line), `category`, `discipline` and `split` may be given.

By hand: .venv/bin/python scripts questions.tabulate_benchmark --config FILE --benchmark NAME
"""

import argparse
import base64
import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas

from scripts.common.errors import UserError, run_program
from scripts.common.input_files import read_input_text
from scripts.common.json_text import json_value
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.data.pictures import read_picture
from scripts.data.seen_pictures import as_seen
from scripts.questions.faults import Faults
from scripts.questions.indices import index_fault
from scripts.questions.native_samples import letters_of
from scripts.questions.own_tables import read_own_table
from scripts.questions.pictures import LONGEST_REFERENCE, picture_field, pictures_in
from scripts.questions.tables import write_benchmark

NEEDED_KEYS = ("question", "images", "answer")
COLUMN_OF_KEY = {"category": "category", "discipline": "l2-category", "split": "split"}
KNOWN_KEYS = (*NEEDED_KEYS, "options", "index", *COLUMN_OF_KEY)


def picture_text(path: Path, where: str) -> str:
    """The bytes of a picture in base64, as a person sees it; raises UserError when there is none."""
    picture = read_picture(str(path))
    if picture.problem:
        raise UserError(
            f"{where}: {picture.problem}: {picture.detail}; expected a picture (paths are relative to the list); replace it"
        )
    content, changes = as_seen(path.read_bytes())
    if changes:
        log(f"{where}: note: {path}: {', '.join(changes)}")
    return base64.b64encode(content).decode()


def answer_field(answer: Any, letters: str, where: str) -> str:
    """The letter of the right option, or the accepted answers."""
    if letters:
        if not (isinstance(answer, str) and len(answer) == 1 and answer in letters):
            raise UserError(
                f"{where}: answer is {answer!r}; expected the letter of an option, one of {', '.join(letters)}"
            )
        return answer
    accepted = [answer] if isinstance(answer, str) else answer
    if not (isinstance(accepted, list) and accepted and all(isinstance(each, str) and each for each in accepted)):
        raise UserError(f"{where}: answer is {answer!r}; expected a text, or a list of the accepted ones")
    return json.dumps(accepted, ensure_ascii=False)


def _is_text(value: Any) -> bool:
    """A text, or a whole number that stands for one."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_option(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and bool(str(value).strip())


def row_of(entry: Any, number: int, list_path: Path) -> dict[str, str]:
    """The row of one line; raises UserError naming the line and the key."""
    where = f"{list_path}: line {number}"
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: {type(entry).__name__} found; expected a JSON object with {', '.join(NEEDED_KEYS)}")
    for key in NEEDED_KEYS:
        if entry.get(key) in (None, "", []):
            raise UserError(f"{where}: {key} is missing or empty; expected {', '.join(NEEDED_KEYS)}")
    if unknown := entry.keys() - set(KNOWN_KEYS):
        raise UserError(f"{where}: unknown key {min(unknown)!r}; expected of {', '.join(KNOWN_KEYS)}")
    for key in ("question", "index", *COLUMN_OF_KEY):
        if not _is_text(entry.get(key, "")):
            raise UserError(f"{where}: {key} is {entry[key]!r}; expected a text")
    if "index" in entry and (fault := index_fault(str(entry["index"]))):
        raise UserError(f"{where}: index is {entry['index']!r}: {fault}; expected a number or a short name")
    options = entry.get("options", [])
    if not (
        isinstance(options, list) and len(options) <= len(string.ascii_uppercase) and all(map(_is_option, options))
    ):
        raise UserError(
            f"{where}: options is {options!r}; expected a list of up to 26 texts, or none for an open question"
        )
    if len(set(map(str, options))) < len(options):
        raise UserError(f"{where}: options is {options!r}; expected each option once")
    letters = string.ascii_uppercase[: len(options)]
    images = entry["images"]
    if not (isinstance(images, list) and all(isinstance(path, str) for path in images)):
        raise UserError(f"{where}: images is {images!r}; expected a list of paths")
    pictures = [picture_text(list_path.parent / path, where) for path in images]
    return {
        "index": str(entry.get("index", number - 1)),
        "image": picture_field(pictures),
        "question": str(entry["question"]),
        **{letter: str(option) for letter, option in zip(letters, options, strict=True)},
        "answer": answer_field(entry["answer"], letters, where),
        **{column: str(entry[key]) for key, column in COLUMN_OF_KEY.items() if key in entry},
    }


def entry_of(line: str, number: int, list_path: Path) -> Any:
    try:
        return json_value(line)
    except ValueError as error:
        raise UserError(f"{list_path}: line {number} is no JSON ({error}); expected an object") from None


def rows_of(list_path: Path) -> list[dict[str, str]]:
    """The rows of all lines that are not empty; raises UserError naming each line that cannot be asked, or that there is none."""
    rows: list[dict[str, str]] = []
    faults = Faults()
    lines: dict[str, int] = {}
    with_options: dict[bool, int] = {}
    text = read_input_text(list_path, "a JSON object a line", "check evaluate.benchmarks")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        with faults.noted():
            row = row_of(entry_of(line, number, list_path), number, list_path)
            with_options.setdefault(bool(letters_of(row)), number)
            if with_options.get(not letters_of(row), number) < number:
                raise UserError(
                    f"{list_path}: line {number}: {'options' if letters_of(row) else 'no options'} found, other than in line "
                    f"{min(with_options.values())}; expected choices alone or open questions alone, since they are scored "
                    "differently; correct the line, or make two lists of it"
                )
            if (first := lines.setdefault(row["index"], number)) != number:
                raise UserError(
                    f"{list_path}: line {number}: index is {row['index']!r}, as in line {first}; expected each index once, since "
                    "answers are kept by it (a line without one has its number, counted from 0)"
                )
            rows.append(row)
    faults.settle()
    if not rows:
        raise UserError(f"{list_path}: no questions found; expected a JSON object a line")
    return rows


def with_pictures_as_seen(table: pandas.DataFrame, path: Path) -> pandas.DataFrame:
    """A copy of a sound table; its texts and the pictures that everybody sees alike stay as they are."""

    def field_as_seen(index: str, field: str) -> str:
        if len(field) <= LONGEST_REFERENCE:  # none, or the index of another question
            return field
        pictures = pictures_in(field, index, path)
        found = [as_seen(base64.b64decode(picture)) for picture in pictures]
        if changes := sorted({change for _, each in found for change in each}):
            log(f"{path}: note: question {index}: {', '.join(changes)}")
        return picture_field([base64.b64encode(content).decode() for content, _ in found])

    return table.assign(
        image=[field_as_seen(index, field) for index, field in zip(table["index"], table["image"], strict=True)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="your own, .jsonl or .tsv")
    parser.add_argument("--backend", choices=("vlmevalkit", "native"), required=True, help="what a .tsv is checked for")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    path: Path = arguments.source
    with owned(arguments.output, inputs=[path]):
        if path.suffix == ".tsv":
            table = with_pictures_as_seen(read_own_table(path, arguments.backend), path)
        else:
            table = pandas.DataFrame(rows_of(path)).fillna("")
        write_benchmark(table, arguments.output)


if __name__ == "__main__":
    run_program(main)
