"""The answers of one evaluation under way, a line each: what an interrupted one leaves behind for the same command again.

A line carries a checksum of itself and of the evaluation's key. So one that was cut off, changed by hand, or that belongs
to another checkpoint or setting is not believed, and its question is asked again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from scripts.common.files import write_text_atomically
from scripts.evaluate.records import Answer, is_failed


def checksum(answer: Answer, key: str) -> str:
    """Of the answer and of the evaluation that it belongs to."""
    return hashlib.sha256(json.dumps([key, asdict(answer)], sort_keys=True).encode()).hexdigest()[:16]


def line_of(answer: Answer, key: str) -> str:
    """How an answer is written down."""
    return json.dumps({**asdict(answer), "checksum": checksum(answer, key)}, ensure_ascii=False) + "\n"


def parse(line: str, key: str) -> Answer | None:
    """The answer of a line; None when it is not what `line_of` wrote for this evaluation."""
    try:
        row = json.loads(line)
        found = row.pop("checksum")
        answer = Answer(**row)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return answer if found == checksum(answer, key) else None


def read_answers(path: Path, key: str) -> list[Answer]:
    """The answers that can be believed, of a file that may still be growing; none when it does not exist yet."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]  # the last is empty, or not yet whole
    return [answer for line in lines if (answer := parse(line, key))]


def keep_sound_answers(path: Path, key: str, indices: Collection[str]) -> list[Answer]:
    """Leaves in the file, and returns, the answers that need not be asked for again.

    That is: believed, not failed, to one of the questions `indices`, and the only one to it.
    """
    answers = read_answers(path, key)
    times = Counter(answer.index for answer in answers)
    kept = [a for a in answers if not is_failed(a) and a.index in indices and times[a.index] == 1]
    write_text_atomically(path, "".join(line_of(answer, key) for answer in kept))
    return kept
