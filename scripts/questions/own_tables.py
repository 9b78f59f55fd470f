"""What a table of the user's own must be, so that each of its questions is asked as it stands there, and can be answered.

VLMEvalKit reads a table by pandas' guesses (`01` is 1, `1.10` is 1.1), takes further columns for its own (`image_path` names the
file that it writes a picture to), and names files after indices. Whatever would be read back as another thing is refused here,
before anything is trained.
"""

import base64
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas

from scripts.common.errors import UserError
from scripts.data.pictures import whole_size_px
from scripts.donors.library_errors import in_one_line
from scripts.questions.faults import Faults
from scripts.questions.indices import index_fault
from scripts.questions.native_samples import accepted_answers, letters_of, own_adapter
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import NEEDED_COLUMNS, read_benchmark, require_scorable, rows_of

KNOWN_COLUMNS = (*NEEDED_COLUMNS, "split", "category", "l2-category", *string.ascii_uppercase)
# VLMEvalKit reads, or writes, the picture at this path instead of the one in the table (vlmeval/dataset/image_base.py).
REFUSED_COLUMNS = ("image_path",)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# Qwen's own tokens, but for those that name places in a picture, and the tags that ms-swift replaces.
_MODEL_TOKEN = re.compile(r"<\|(?!(?:object_ref|box|quad)_(?:start|end)\|>)\w+\|>|<(?:image|video|audio)>")
# A cell that swallowed the next line: a quote that nobody closed.
_SWALLOWED_LINE = re.compile(r"\n[^\n]*\t|\t[^\n]*\n")


def read_own_table(path: Path, backend: str) -> pandas.DataFrame:
    """Raises UserError where a question of the table could not be asked or scored by EvalScope's backend."""
    for_vlmevalkit = backend == "vlmevalkit"
    if path.is_file():
        _check_header(path)
    table = read_benchmark(path, needs_pictures=for_vlmevalkit)
    pictures = pictures_of(table, path)
    if not any(pictures):
        raise UserError(f"{path}: no question has a picture; expected at least one; correct the table")
    if for_vlmevalkit:
        require_scorable(table, path)
    require_own_table(path, table, pictures, for_vlmevalkit=for_vlmevalkit)
    return table


def require_own_table(
    path: Path, table: pandas.DataFrame, pictures: Sequence[list[str]], *, for_vlmevalkit: bool
) -> None:
    """Raises UserError, by column and question, where a table of the user's would not be asked as it stands."""
    faults = Faults()
    for row in rows_of(table):
        with faults.noted():
            _check_row(path, row)
    faults.settle()
    _check_pictures(path, list(table["index"]), pictures, faults)
    faults.settle()
    if for_vlmevalkit:
        _check_read_back(path, table, faults)
    else:
        _check_answers(path, rows_of(table), faults)
    faults.settle()


def _check_row(path: Path, row: Mapping[str, str]) -> None:
    """Its index and its texts."""
    where = f"{path}: question {row['index']}"
    if fault := index_fault(row["index"]):
        raise UserError(f"{path}: index {row['index']!r}: {fault}; expected a number or a short name; correct the row")
    if not row["question"].strip():
        raise UserError(f"{where}: its question is empty; expected a text; correct the row")
    for name, text in row.items():
        if name != "image":
            _check_text(f"{where}: {name}", text)
    options = [row[letter].strip() for letter in letters_of(row)]
    if len(set(options)) < len(options):
        raise UserError(f"{where}: options {options!r} found; expected each option once; correct the row")


def _check_header(path: Path) -> None:
    with open(path, encoding="utf-8-sig", newline="") as file:
        names = [name.strip('"') for name in file.readline().rstrip("\r\n").split("\t")]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: column {name!r} found twice; expected each once; rename one")
        if name in REFUSED_COLUMNS:
            raise UserError(
                f"{path}: column {name!r} found, by which VLMEvalKit would show, or overwrite, other pictures than those of "
                "the column `image`; remove it"
            )
        likeness = [known for known in KNOWN_COLUMNS if known.lower() == name.strip().lower() and known != name]
        if likeness and not (len(name) == 1 and likeness[0] in names):
            raise UserError(f"{path}: column {name!r} found; expected {likeness[0]!r}; rename it")


def _check_text(where: str, text: str) -> None:
    if found := _CONTROL_CHARACTER.search(text):
        raise UserError(f"{where} holds {found.group()!r}; expected no control characters but line feeds; remove it")
    if found := _MODEL_TOKEN.search(text):
        raise UserError(
            f"{where} holds {found.group()}, a token of the model, which would stand for a picture or end the question; "
            "expected texts; word it otherwise"
        )
    if _SWALLOWED_LINE.search(text):
        raise UserError(
            f"{where} holds a tab and the end of a line, as if a quote were not closed and the next rows were part of it; "
            'expected double quotes only around a whole cell, and "" for one inside; correct the row'
        )


def _check_pictures(path: Path, indices: Sequence[str], pictures: Sequence[list[str]], faults: Faults) -> None:
    sound: set[str] = set()
    for index, shown in zip(indices, pictures, strict=True):
        for picture in shown:
            if picture in sound:
                continue
            try:
                whole_size_px(base64.b64decode(picture))
            except Exception as error:  # decoders raise whatever they meet in the file
                faults.found.append(
                    f"{path}: question {index}: its picture cannot be read ({in_one_line(error)}); expected a whole picture in "
                    "base64; make the row again"
                )
            sound.add(picture)


def _check_read_back(path: Path, table: pandas.DataFrame, faults: Faults) -> None:
    """Each cell as VLMEvalKit will read it; of each column, whose type it guesses as one, the first that becomes another."""
    read = pandas.read_csv(path, sep="\t")
    if len(read) != len(table):
        raise UserError(f"{path}: VLMEvalKit would read {len(read)} questions of {len(table)}; make the table again")
    for name in table:
        if name == "image":
            continue
        for index, text, value in zip(table["index"], table[name], read[name], strict=True):
            shown = "" if pandas.isna(value) and name not in NEEDED_COLUMNS else str(value)
            if shown != text:
                faults.found.append(
                    f"{path}: {name} of question {index} is {text!r}, which VLMEvalKit would read as {shown!r}; expected a text "
                    "that no reader takes for another number; word it otherwise (for example with its unit), number the "
                    "questions from 0, or choose evaluate.backend: native, which reads texts as they are"
                )
                break


def _check_answers(path: Path, rows: Sequence[Mapping[str, str]], faults: Faults) -> None:
    """The native backend's: choices or open questions, each with an answer that can be right."""
    own_adapter(rows, str(path))
    if all(re.fullmatch("[A-Z]", row["answer"]) and not letters_of(row) for row in rows):
        raise UserError(
            f"{path}: each answer is a letter, but there are no options; expected a column for each option, named by its "
            "letter (A, B, …), or the key `options` in each line of a list; add them"
        )
    for row in rows:
        letters = letters_of(row)
        if letters and row["answer"] not in letters:
            faults.found.append(
                f"{path}: the answer of question {row['index']} is {row['answer']!r}; expected the letter of one of its "
                f"options ({', '.join(letters)}); correct the row"
            )
        answers = accepted_answers(row["answer"])
        is_broken_list = row["answer"].startswith("[") and answers == [row["answer"]]
        if not letters and (is_broken_list or not any(answer.strip() for answer in answers)):
            faults.found.append(
                f"{path}: the answer of question {row['index']} is {row['answer']!r}; expected a text, or a list of the "
                "accepted ones; correct the row"
            )
