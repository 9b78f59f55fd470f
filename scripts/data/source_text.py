"""How a source of training rows is written: a file, or the id of a dataset, perhaps with how many rows to take of it."""

from pathlib import Path

from scripts.common.errors import UserError

FILE_SUFFIXES = (".jsonl", ".json")


def split_source(text: str) -> tuple[str, int | None]:
    """`NAME` or `NAME#NUM` as the name and the number; a NAME that is an existing file is a file, even with a # in it."""
    if Path(text).is_file():
        return text, None
    name, mark, number = text.rpartition("#")
    if not mark or text.endswith(FILE_SUFFIXES):
        return text, None
    if not number.isdecimal() or int(number) == 0:
        raise UserError(
            f"source {text!r}: {number!r} found after the #; expected the number of rows to take, as in ID#1000"
        )
    return name, int(number)


def file_of_source(text: str) -> str | None:
    """The file that a source names, whether it is there yet or not; None for the id of a dataset."""
    name, _ = split_source(text)
    return name if name.endswith(FILE_SUFFIXES) or Path(name).is_file() else None
