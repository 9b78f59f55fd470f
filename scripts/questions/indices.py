"""The indices of questions: their order, and how a message names several of them."""

from collections.abc import Iterable

# More are not named in a message.
NUM_NAMED = 5


def index_order(index: str) -> tuple[bool, int, str]:
    """Sort key: numbers by value, then the rest by text."""
    return (not index.isdigit(), int(index) if index.isdigit() else 0, index)


def named(indices: Iterable[str]) -> str:
    """`3 questions (1, 7, 12)`, naming the first few."""
    ordered = sorted(indices, key=index_order)
    more = ", …" if len(ordered) > NUM_NAMED else ""
    noun = "question" if len(ordered) == 1 else "questions"
    return f"{len(ordered)} {noun} ({', '.join(ordered[:NUM_NAMED])}{more})"
