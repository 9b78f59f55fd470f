"""Joins question, answer and judgement into records, or refuses the whole benchmark.

VLMEvalKit ends with exit status 0 whatever happened, counts a request that failed as a wrong answer, and keeps judgements
of older answers; the native backend counts a refused request (HTTP 400) as an answer. So nothing of their score tables is
used: a question that failed, is missing or was judged by another answer refuses the benchmark.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar

from scripts.common.errors import UserError
from scripts.evaluate.answer_log import Answer, require_no_failures
from scripts.evaluate.judgements import Judgement
from scripts.evaluate.records import Record, Status
from scripts.questions.indices import index_order, named
from scripts.questions.tables import Question


class _OfQuestion(Protocol):
    """An answer or a judgement."""

    @property
    def index(self) -> str: ...


Item = TypeVar("Item", bound=_OfQuestion)


def by_index(items: Sequence[Item], questions: Sequence[Question], what: str, where: str) -> dict[str, Item]:
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


def status_of(answer: Answer, judgement: Judgement) -> Status:
    if answer.finish_reason == "length":
        return "truncated"
    return "answered" if judgement.found else "unparsed"


def make_records(
    questions: Sequence[Question], answers: Sequence[Answer], judgements: Sequence[Judgement], seed: int, where: str
) -> list[Record]:
    """The records of one seed in the order of their indices; `where` is the file of the answers.

    Raises UserError unless each question was answered once, and judged once by that very answer.
    """
    require_no_failures(answers, len(questions), where)
    answer_of = by_index(answers, questions, "answers", where)
    judgement_of = by_index(judgements, questions, "judgements", where)
    if stale := [index for index in answer_of if judgement_of[index].is_stale(answer_of[index])]:
        raise UserError(
            f"{where}: {named(stale)} were judged by another answer than the server gave (a stale judgement); "
            "run the same command again"
        )
    records = []
    for question in sorted(questions, key=lambda question: index_order(question.index)):
        answer, judgement = answer_of[question.index], judgement_of[question.index]
        records.append(
            Record(
                index=question.index,
                split=question.split,
                discipline=question.discipline,
                subject=question.subject,
                question=question.question,
                options=judgement.options,
                answer=judgement.answer,
                prediction=answer.prediction,
                extracted=judgement.found,
                score=judgement.score,
                correct=judgement.score == 1,
                metric=judgement.metric,
                status=status_of(answer, judgement),
                seed=seed,
                image_sha256=question.image_sha256,
            )
        )
    return records
