"""One record per question, joined from what was asked, what the server said and what EvalScope made of it.

VLMEvalKit ends with exit status 0 whatever happened, counts a request that failed as a wrong answer, and keeps judgements
of older answers; the native backend counts a refused request (HTTP 400) as an answer. So nothing of their score tables is
used: each question is checked here, and one that failed, is missing or was judged by another answer refuses the whole
benchmark.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.benchmark_tables import Question
from common.errors import UserError

# What VLMEvalKit puts in place of an answer (vlmeval/api/base.py: fail_msg).
FAILURE_MARK = "Failed to obtain answer"
# What its judge writes when it found no option in the answer (vlmeval/dataset/utils/multiple_choice.py).
UNPARSED_MARK = "Failed in Prefetch"
NO_OPTION = "Z"
NUM_NAMED = 5


@dataclass(frozen=True)
class Answer:
    """What the server said to one question; `error` is why it did not."""

    index: str
    prediction: str
    finish_reason: str | None
    error: str | None


@dataclass(frozen=True)
class Judgement:
    """A backend's verdict: what its own parser finds in the answer (`Z` or None: nothing), and the score of it in 0..1."""

    index: str
    prediction: str
    options: dict[str, str]
    answer: str
    score: float
    extracted: str | None
    metric: str = "accuracy"
    log: str | None = None  # VLMEvalKit's words on a choice, by which a verdict on an older answer is known


def write_judgements(path: Path, judgements: Iterable[Judgement]) -> None:
    """A line each."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(judgement), ensure_ascii=False) + "\n" for judgement in judgements)


def read_judgements(path: Path) -> list[Judgement]:
    """What a backend made of the answers; none when it did not come so far."""
    if not path.exists():
        return []
    return [Judgement(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def index_order(index: str) -> tuple[bool, int, str]:
    """Numbers by value, then the rest by text."""
    return (not index.isdigit(), int(index) if index.isdigit() else 0, index)


def named(indices: Iterable[str]) -> str:
    """`3 questions (1, 7, 12)`, naming the first few."""
    ordered = sorted(indices, key=index_order)
    more = ", …" if len(ordered) > NUM_NAMED else ""
    noun = "question" if len(ordered) == 1 else "questions"
    return f"{len(ordered)} {noun} ({', '.join(ordered[:NUM_NAMED])}{more})"


def is_failed(answer: Answer) -> bool:
    return answer.error is not None or FAILURE_MARK in answer.prediction


def require_no_failures(answers: Iterable[Answer], num_questions: int, where: str) -> None:
    """Raises UserError naming the questions that the server did not answer."""
    if failed := [answer for answer in answers if is_failed(answer)]:
        raise UserError(
            f"{where}: {named(answer.index for answer in failed)} of {num_questions} failed at the server: "
            f"{failed[0].error or failed[0].prediction}; a score would count them as wrong, so nothing is written; "
            "mend the server (its log is beside this file) and run the same command again"
        )


def same_answer(said: str, judged: str) -> bool:
    """Whether a judged answer is the one that was said, after a way through a table (numbers, absent values, edges)."""
    said, judged = said.strip(), judged.strip()
    if said == judged:
        return True
    if judged in ("", "nan"):
        return said.lower() in ("", "nan", "na", "n/a", "none", "null", "<na>")
    try:
        return float(said) == float(judged)
    except ValueError:
        return False


def is_stale(answer: Answer, judgement: Judgement) -> bool:
    """Whether the verdict is not that of the backend's parser on this very answer."""
    if not same_answer(answer.prediction, judgement.prediction):
        return True
    if judgement.log is None:
        return False
    log = judgement.log.strip().removeprefix("Match Log:").strip()
    if judgement.extracted is None:
        log_agrees = log.startswith(UNPARSED_MARK)
    else:
        log_agrees = same_answer(judgement.prediction, log.removesuffix("."))
    return not (log_agrees and judgement.score == (judgement.extracted == judgement.answer))


def status_of(answer: Answer, extracted: str | None) -> str:
    if answer.finish_reason == "length":
        return "truncated"
    return "answered" if extracted else "unparsed"


def by_index(items: Sequence[Any], questions: Sequence[Question], what: str, where: str) -> Mapping[str, Any]:
    """Items by the index of their question; raises UserError unless each question has exactly one."""
    known = {question.index for question in questions}
    found = Counter(item.index for item in items)
    doubled = {index for index, number in found.items() if number > 1}
    problems = {"missing for": known - found.keys(), "doubled for": doubled, "there for unknown": found.keys() - known}
    for problem, indices in problems.items():
        if indices:
            raise UserError(
                f"{where}: {what} {problem} {named(indices)}; expected one for each of {len(questions)}; "
                "run the same command again"
            )
    return {item.index: item for item in items}


def make_records(
    questions: Sequence[Question], answers: Sequence[Answer], judgements: Sequence[Judgement], seed: int, where: str
) -> list[dict[str, Any]]:
    """The records of one seed in the order of their indices; raises UserError rather than leave a question in doubt."""
    require_no_failures(answers, len(questions), where)
    answer_of = by_index(answers, questions, "answers", where)
    judgement_of = by_index(judgements, questions, "judgements", where)
    if stale := [index for index in answer_of if is_stale(answer_of[index], judgement_of[index])]:
        raise UserError(
            f"{where}: {named(stale)} were judged by another answer than the server gave (a stale judgement); "
            "run the same command again"
        )
    records = []
    for question in sorted(questions, key=lambda question: index_order(question.index)):
        answer, judgement = answer_of[question.index], judgement_of[question.index]
        extracted = None if judgement.extracted == NO_OPTION else judgement.extracted
        record = {name: value for name, value in asdict(question).items() if name != "image_sha256"}
        record |= {"options": judgement.options, "answer": judgement.answer, "prediction": answer.prediction}
        record |= {"extracted": extracted, "score": judgement.score, "correct": judgement.score == 1}
        record["metric"] = judgement.metric
        records.append(
            {**record, "status": status_of(answer, extracted), "seed": seed, "image_sha256": question.image_sha256}
        )
    return records
