"""How a source of training rows is written: a file, or the id of a dataset, perhaps with how many rows to take of it."""

from scripts.common.errors import UserError
from scripts.common.input_files import file_fault

FILE_SUFFIXES = (".jsonl", ".json", ".csv")

# More than any training takes; a slip of the keyboard would fill the disk.
MAX_NUM_ROWS = 1_000_000_000


def split_source(text: str) -> tuple[str, int | None]:
    """`NAME` or `NAME#NUM` as the name and the number; a NAME that is an existing file is a file, even with a # in it."""
    if file_fault(text) is None:
        return text, None
    name, mark, number = text.rpartition("#")
    if not mark or text.endswith(FILE_SUFFIXES):
        return text, None
    if not (number.isascii() and number.isdigit() and 0 < int(number[:20]) <= MAX_NUM_ROWS):
        raise UserError(
            f"source {text!r}: {number!r:.40} found after the #; expected the number of rows to take, as in ID#1000"
        )
    if not name:
        raise UserError(f"source {text!r}: nothing found before the #; expected a file or the id of a dataset")
    return name, int(number)


def file_of_source(text: str) -> str | None:
    """The file that a source names, whether it is there yet or not; None for the id of a dataset."""
    name, _ = split_source(text)
    return name if name.endswith(FILE_SUFFIXES) or file_fault(name) is None else None
