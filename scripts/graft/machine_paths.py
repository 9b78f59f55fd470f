"""Finds paths of a machine in the small files of a model: private, and of no use to whoever downloads it.

A donor that was trained or downloaded by somebody often holds one (`name_or_path` in tokenizer_config.json). What a graft
takes over of it goes on into each checkpoint, so it is looked for before anything is trained, and once more before an upload.
"""

import re
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.json_text import json_value
from scripts.common.root import ROOT
from scripts.common.secret_values import leaves

# Only tokens; one that looks like a path is none.
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "added_tokens.json", "merges.txt"})

# A whole string that is an absolute path or begins at a home directory, on Unix or Windows.
LOCAL_PATH = re.compile(r"(?:/[^/\s]+){2,}/?|~/\S+|[A-Za-z]:\\\S+|file://\S+")
TEXT_SUFFIXES = (".md", ".py", ".txt", ".jinja", ".yaml", ".yml")
LARGEST_SMALL_FILE_BYTES = 1 << 20


def places_of_this_machine() -> list[str]:
    """Paths that an upload must not name: this user's home, the repository and the working directory."""
    places = {str(Path.home()), str(ROOT), str(Path.cwd())}
    return sorted(place for place in places if place != "/")


def is_searched(name: str, num_bytes: int) -> bool:
    """Whether a file is looked into: small, with text for people or programs, and no vocabulary."""
    is_text = name.endswith((".json", *TEXT_SUFFIXES))
    return is_text and name not in VOCABULARIES and num_bytes <= LARGEST_SMALL_FILE_BYTES


def path_in(name: str, content: bytes) -> str | None:
    """How a file that is searched names a path of a machine; None where it does not. Raises UserError where it is no JSON."""
    places = "|".join(map(re.escape, places_of_this_machine()))
    in_text = re.compile(rf"(?<![\w.:/-])(?:{places})(?![\w.-])")
    if name.endswith(".json"):
        try:
            values = json_value(content)
        except ValueError as error:
            raise UserError(
                f"{name}: not valid JSON ({error}); fetch or make it again, it was probably cut off"
            ) from None
        for key, text in leaves(values):
            if isinstance(text, str) and (LOCAL_PATH.fullmatch(text) or in_text.search(text)):
                return f"{key} is {text!r}, a path of a machine"
        return None
    found = in_text.search(content.decode(errors="replace"))
    return f"names {found.group()}, a path of this machine" if found else None
