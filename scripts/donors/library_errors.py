"""What a library says when it fails, as part of a message of ours: one line, however many lines its error has."""


def in_one_line(error: BaseException, max_characters: int | None = None) -> str:
    """The error's class and text, cut off after so many characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:max_characters]
