"""The table of a benchmark, in VLMEvalKit's format: a TSV with a row per question and its pictures in base64.

Benchmarks of EvalScope's native backend are kept in the same format (native_samples.py).
"""

import itertools
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas

from scripts.common.errors import UserError
from scripts.common.files import temporary_for
from scripts.common.input_files import require_file
from scripts.donors.library_errors import in_one_line
from scripts.questions.indices import READ_AS_ABSENT
from scripts.questions.pictures import picture_sha256

NEEDED_COLUMNS = ("index", "question", "answer", "image")


@dataclass(frozen=True)
class Question:
    """One row of a benchmark, with the fingerprint of its picture or pictures in place of them."""

    index: str
    split: str
    discipline: str | None
    subject: str | None
    question: str
    image_sha256: str | None  # None: no picture is shown


def read_benchmark(path: Path, *, needs_pictures: bool = True) -> pandas.DataFrame:
    """The whole table as text; raises UserError when a question could not be asked or would be asked twice."""
    require_file(
        path,
        "a benchmark in VLMEvalKit's TSV format",
        "put it there, or fetch one that VLMEvalKit knows: scripts/questions/fetch_benchmark.py --benchmark "
        + path.stem,
    )
    try:
        table = _parse(path)
    except (pandas.errors.EmptyDataError, pandas.errors.ParserError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a TSV ({in_one_line(error)}); expected a header and a row per question; make it again"
        ) from None
    if missing := [name for name in NEEDED_COLUMNS if name not in table]:
        raise UserError(
            f"{path}: no column {', '.join(missing)} (found {', '.join(table.columns)}); expected "
            f"{', '.join(NEEDED_COLUMNS)} and an option per letter; see VLMEvalKit's custom datasets"
        )
    if table.empty:
        raise UserError(f"{path}: no questions found, only a header; expected a row per question; make it again")
    if doubled := sorted(table["index"][table["index"].duplicated()].unique()):
        raise UserError(
            f"{path}: index {', '.join(doubled[:5])} stands on more than one row ({len(doubled)} such); "
            "expected each index once, since answers are kept by it"
        )
    unseen = list(table["index"][table["image"] == ""]) if needs_pictures else []
    if unseen:
        raise UserError(
            f"{path}: question {', '.join(unseen[:5])} has no picture ({len(unseen)} such); VLMEvalKit would leave "
            "it out silently; give it one, or remove the row"
        )
    return table


def rows_of(table: pandas.DataFrame) -> list[dict[str, str]]:
    """The rows of a table of texts, by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def questions_of(table: pandas.DataFrame, pictures: Sequence[list[str]]) -> list[Question]:
    """The questions of a table with these pictures (`pictures_of`), in its order."""

    def column(name: str) -> list[str]:
        return list(table[name]) if name in table else [""] * len(table)

    return [
        Question(index, split or "all", discipline or None, subject or None, question, picture_sha256(shown) if shown else None)
        for index, split, discipline, subject, question, shown in zip(
            table["index"], column("split"), column("l2-category"), column("category"), table["question"], pictures,
            strict=True,
        )
    ]  # fmt: skip


def _parse(path: Path) -> pandas.DataFrame:
    # Not with the first column as labels, which pandas makes of it where each row ends with a tab.
    return pandas.read_csv(path, sep="\t", dtype=str, keep_default_na=False, index_col=False)


def _lost_cell(table: pandas.DataFrame, read: pandas.DataFrame) -> tuple[str, str] | None:
    """Index and column of the first cell of a table that was read back as another one."""
    nothing: dict[str, str] = {}
    for row, again in itertools.zip_longest(rows_of(table), rows_of(read), fillvalue=nothing):
        if differing := [name for name in {**row, **again} if row.get(name) != again.get(name)]:
            return row.get("index", "after the last"), differing[0]
    return None


def write_benchmark(table: pandas.DataFrame, path: Path) -> None:
    """Writes a table of texts, whole or not at all; UserError where a text would be read back as another one."""
    with temporary_for(path) as part_path:
        with open(part_path, "w", encoding="utf-8") as file:
            table.to_csv(file, sep="\t", index=False)
        try:
            lost = _lost_cell(table, _parse(part_path))
        except (pandas.errors.ParserError, ValueError) as error:
            lost = (f"of some row ({error})", "a text")
        if lost:
            index, column = lost
            raise UserError(
                f"{path}: {column} of question {index} does not survive a table: it was read back as another text; expected "
                "no control characters but tabs and line feeds; word it otherwise"
            )


def require_scorable(table: pandas.DataFrame, path: Path) -> None:
    """Raises UserError when VLMEvalKit would read another text than the table has, or the right answer is no option."""
    letters = [letter for letter in string.ascii_uppercase if letter in table]
    if not letters:
        raise UserError(
            f"{path}: no question has options; VLMEvalKit asks choices only; give options, or ask open questions by "
            "evaluate.backend: native"
        )
    for letter in letters:
        shown = table[letter][table[letter] != ""]
        if len(shown) < len(table) and len(shown) and shown.str.fullmatch(r"[+-]?\d+").all():
            raise UserError(
                f"{path}: option {letter} is a whole number wherever it is given, but some questions have none; "
                f"VLMEvalKit would show {shown.iloc[0]} as {shown.iloc[0]}.0; give each question as many options, or "
                "word them otherwise"
            )
    for row in table.to_dict("records"):
        for column in ("question", "answer", *letters):
            if row[column] in READ_AS_ABSENT:
                raise UserError(
                    f"{path}: {column} of question {row['index']} is {row[column]!r}, which VLMEvalKit reads as absent; "
                    "word it otherwise, for example 'none'"
                )
        if not any(row["answer"] == letter and row[letter] for letter in letters):
            raise UserError(
                f"{path}: the answer of question {row['index']} is {row['answer']!r}; expected the letter of one of its "
                f"options ({', '.join(letter for letter in letters if row[letter])}); correct the row"
            )
