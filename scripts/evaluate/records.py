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

from scripts.common.errors import UserError
from scripts.common.reading import first_repeated, numbered_lines, require
from scripts.questions.tables import Question

# What VLMEvalKit puts in place of an answer (vlmeval/api/base.py: fail_msg).
FAILURE_MARK = "Failed to obtain answer"

# What its judge writes when it found no option in the answer (vlmeval/dataset/utils/multiple_choice.py).
UNPARSED_MARK = "Failed in Prefetch"
NO_OPTION = "Z"
NUM_NAMED = 5
RECORD_STATUSES = ("answered", "unparsed", "truncated")


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


@dataclass(frozen=True)
class Record:
    """One question as one model answered it for one seed."""

    index: str
    split: str
    discipline: str | None
    subject: str | None
    question: str
    options: dict[str, str]
    answer: str
    prediction: str
    extracted: str | None
    score: float
    correct: bool
    metric: str
    status: str
    seed: int
    image_sha256: str | None  # None: no picture was shown


def read_records(path: Path) -> list[Record]:
    """The records of one model on one benchmark; UserError naming the line that is broken."""
    records = []
    for number, line in numbered_lines(path, "one JSON record per question"):
        where = f"{path}: line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where}: not valid JSON ({error}); evaluate this model again, the file was probably cut off"
            ) from None
        text = (str, type(None))
        record = Record(
            index=require(value, "index", str, where),
            split=require(value, "split", str, where),
            discipline=require(value, "discipline", text, where),
            subject=require(value, "subject", text, where),
            question=require(value, "question", str, where),
            options=require(value, "options", dict, where),
            answer=require(value, "answer", str, where),
            prediction=require(value, "prediction", str, where),
            extracted=require(value, "extracted", text, where),
            score=float(require(value, "score", (int, float), where)),
            correct=require(value, "correct", bool, where),
            metric=require(value, "metric", str, where),
            status=require(value, "status", str, where),
            seed=require(value, "seed", int, where),
            image_sha256=require(value, "image_sha256", text, where),
        )
        if record.status not in RECORD_STATUSES:
            raise UserError(
                f"{where}: status is {record.status!r}; expected one of {', '.join(RECORD_STATUSES)}; "
                "evaluate this model again"
            )
        if not 0 <= record.score <= 1 or record.correct != (record.score == 1):
            raise UserError(
                f"{where}: question {record.index} has the score {record.score} and is said to be "
                f"{'correct' if record.correct else 'not correct'}; expected a score from 0 to 1, and correct for 1 alone; "
                "evaluate this model again"
            )
        if record.status == "unparsed" and record.correct:
            raise UserError(f"{where}: question {record.index} is both unparsed and correct; evaluate this model again")
        records.append(record)
    if repeated := first_repeated([f"{record.index} (seed {record.seed})" for record in records]):
        raise UserError(f"{path}: question {repeated} is there twice; evaluate this model again")
    return records


def of_first_seed(records: list[Record]) -> dict[str, Record]:
    """One record a question, by its index: with several seeds, that of the first."""
    first = min(record.seed for record in records)
    return {record.index: record for record in records if record.seed == first}
