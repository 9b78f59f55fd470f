"""The judgement of each answer by EvalScope's own parser: a file with a line each, and whether it judges this very answer."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.evaluate.answer_log import Answer

# What VLMEvalKit logs when it found no option in an answer (vlmeval/dataset/utils/multiple_choice.py), and the option
# that it takes a refusal for.
UNPARSED_MARK = "Failed in Prefetch"
NO_OPTION = "Z"


@dataclass(frozen=True)
class Judgement:
    """What the parser finds in one answer (`Z` or None: nothing), and the score of it in 0..1."""

    index: str
    prediction: str
    options: dict[str, str]
    answer: str
    score: float
    extracted: str | None
    metric: str = "accuracy"
    log: str | None = None  # VLMEvalKit's log of a choice, by which a judgement of an older answer is recognised

    @property
    def found(self) -> str | None:
        """What was found in the answer."""
        return None if self.extracted == NO_OPTION else self.extracted

    def is_stale(self, answer: Answer) -> bool:
        """Whether this judges another answer than the one given."""
        if not same_answer(answer.prediction, self.prediction):
            return True
        if self.log is None:
            return False
        log = self.log.strip().removeprefix("Match Log:").strip()
        if self.extracted is None:
            log_agrees = log.startswith(UNPARSED_MARK)
        else:
            log_agrees = same_answer(self.prediction, log.removesuffix("."))
        return not (log_agrees and self.score == (self.extracted == self.answer))


def write_judgements(path: Path, judgements: Iterable[Judgement]) -> None:
    """A line each."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(judgement), ensure_ascii=False) + "\n" for judgement in judgements)


def read_judgements(path: Path) -> list[Judgement]:
    """The judgements of a run of EvalScope; none when it ended before them."""
    if not path.exists():
        return []
    return [Judgement(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]


def same_answer(given: str, judged: str) -> bool:
    """Whether two texts are one answer, of which the second was read from a table (numbers, absent values, edges)."""
    given, judged = given.strip(), judged.strip()
    if given == judged:
        return True
    if judged in ("", "nan"):
        return given.lower() in ("", "nan", "na", "n/a", "none", "null", "<na>")
    try:
        return float(given) == float(judged)
    except ValueError:
        return False
