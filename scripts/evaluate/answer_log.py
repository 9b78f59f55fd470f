"""The answers of an evaluation under way, a line each: an interrupted one goes on from them when the command is repeated.

A line carries a checksum of itself and of the evaluation's key. A line that was cut off or changed, or that belongs to
another checkpoint or setting, is ignored, and its question is asked again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import write_text_atomically
from scripts.common.json_text import json_value
from scripts.questions.indices import named

# What VLMEvalKit puts in place of an answer (vlmeval/api/base.py: fail_msg).
FAILURE_MARK = "Failed to obtain answer"


@dataclass(frozen=True)
class Answer:
    """The server's answer to one question, or the error in its place."""

    index: str
    prediction: str
    finish_reason: str | None
    error: str | None

    @property
    def is_failed(self) -> bool:
        return self.error is not None or FAILURE_MARK in self.prediction


def require_no_failures(answers: Iterable[Answer], num_questions: int, where: str) -> None:
    """Raises UserError naming the questions that the server did not answer."""
    if failed := [answer for answer in answers if answer.is_failed]:
        raise UserError(
            f"{where}: {named(answer.index for answer in failed)} of {num_questions} failed at the server: "
            f"{failed[0].error or failed[0].prediction}; a score would count them as wrong, so nothing is written; "
            "see the server's log beside this file, and run the same command again"
        )


def checksum(answer: Answer, key: str) -> str:
    """Of the answer and of the evaluation that it belongs to."""
    return hashlib.sha256(json.dumps([key, asdict(answer)], sort_keys=True).encode()).hexdigest()[:16]


def line_of(answer: Answer, key: str) -> str:
    """The line of an answer in the file."""
    return json.dumps({**asdict(answer), "checksum": checksum(answer, key)}, ensure_ascii=False) + "\n"


def parse(line: str, key: str) -> Answer | None:
    """The answer of a line; None unless `line_of` wrote it for this evaluation."""
    try:
        row = json_value(line)
        found = row.pop("checksum")
        answer = Answer(**row)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return answer if found == checksum(answer, key) else None


def read_answers(path: Path, key: str) -> list[Answer]:
    """The valid answers of a file that may still be growing; none when it does not exist yet."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]  # the last is empty, or not yet whole
    return [answer for line in lines if (answer := parse(line, key))]


def keep_sound_answers(path: Path, key: str, indices: Collection[str]) -> list[Answer]:
    """Leaves in the file, and returns, the answers that need not be asked for again.

    That is: valid, not failed, to one of the questions `indices`, and the only one to it.
    """
    answers = read_answers(path, key)
    times = Counter(answer.index for answer in answers)
    kept = [a for a in answers if not a.is_failed and a.index in indices and times[a.index] == 1]
    write_text_atomically(path, "".join(line_of(answer, key) for answer in kept))
    return kept
