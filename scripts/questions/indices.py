"""The indices of questions: what one may be, their order, and how a message names several of them."""

import re
from collections.abc import Iterable

# More are not named in a message.
NUM_NAMED = 5
# Files are named after it.
MAX_LENGTH = 100

# Texts that pandas, and so VLMEvalKit, reads as an absent value (pandas.io.parsers: na_values).
READ_AS_ABSENT = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null"}
)  # fmt: skip


def index_fault(index: str) -> str | None:
    """Why a text cannot be the index of a question; None where it can."""
    if not index.strip() or index != index.strip():
        return "empty, or with spaces around it"
    if re.search(r"[/\\\x00-\x1f\x7f]", index) or index in (".", ".."):
        return "holds what no name of a file may hold"
    if index in READ_AS_ABSENT:
        return "what VLMEvalKit reads as absent"
    return f"longer than {MAX_LENGTH} characters" if len(index) > MAX_LENGTH else None


def _is_number(index: str) -> bool:
    return index.isascii() and index.isdigit()


def index_order(index: str) -> tuple[bool, int, str]:
    """Sort key: numbers by value, then the rest by text."""
    return (not _is_number(index), int(index) if _is_number(index) else 0, index)


def named(indices: Iterable[str]) -> str:
    """`3 questions (1, 7, 12)`, naming the first few."""
    ordered = sorted(indices, key=index_order)
    more = ", …" if len(ordered) > NUM_NAMED else ""
    noun = "question" if len(ordered) == 1 else "questions"
    return f"{len(ordered)} {noun} ({', '.join(ordered[:NUM_NAMED])}{more})"
