"""The page of questions that some models answered right and others wrong, with pictures and filters."""

import base64
import hashlib
from collections.abc import Sequence

from markupsafe import Markup

from scripts.evaluate.scores import Benchmark
from scripts.questions.pictures import read_pictures
from scripts.report.gallery import Question, check_pictures, embed_all, questions_of
from scripts.report.page import MAX_PREDICTION_LENGTH, MAX_QUESTION_LENGTH, TEMPLATE_DIR, page_environment, style_sheet

TEMPLATE_NAME = "disagreements.html.j2"
SCRIPT_NAME = "disagreements.js"

# Every question on which models differ is shown, so this page may be larger than the report; MMMU has 900 questions.
PICTURE_BUDGET_BYTES = 16_000_000


def disagreed(questions: Sequence[Question]) -> list[Question]:
    """Those that some models answered right and others wrong, in the benchmark's order."""
    return [question for question in questions if 0 < len(question.right_models) < len(question.answers)]


def first_choice(questions: Sequence[Question]) -> tuple[str | None, str | None]:
    """The filter that the page opens with: right by the first model (the parent, if asked), wrong by the last; or the reverse."""
    if questions:
        first, last = (questions[0].answers[place][0] for place in (0, -1))
        for right, wrong in ((first, last), (last, first)):
            if any(right in question.right_models and wrong not in question.right_models for question in questions):
                return right, wrong
    return None, None


def render_disagreements(benchmark: Benchmark) -> str:
    """The whole page; needs nothing from outside itself, and runs no script but its own."""
    questions = questions_of(benchmark)
    chosen = disagreed(questions)
    encoded = read_pictures(benchmark.tsv_path, {question.index for question in chosen if question.has_picture})
    check_pictures(chosen, encoded, benchmark.tsv_path)
    first_right, first_wrong = first_choice(chosen)
    script = (TEMPLATE_DIR / SCRIPT_NAME).read_text(encoding="utf-8")
    return page_environment().get_template(TEMPLATE_NAME).render(
        name=benchmark.name,
        first_right=first_right,
        first_wrong=first_wrong,
        models=[model for model, _ in questions[0].answers] if questions else [],
        subjects=sorted({question.subject for question in chosen if question.subject}),
        num_questions=len(questions),
        num_seeds=len({record.seed for records in benchmark.records.values() for record in records}),
        num_agreed_right=sum(len(question.right_models) == len(question.answers) for question in questions),
        num_agreed_wrong=sum(not question.right_models for question in questions),
        questions=chosen,
        pictures=embed_all(encoded, benchmark.tsv_path, PICTURE_BUDGET_BYTES),
        style=style_sheet("colours.css", "page.css"),
        script=Markup(script),
        # For the Content-Security-Policy: the browser runs only a script with this hash.
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        max_question_length=MAX_QUESTION_LENGTH,
        max_prediction_length=MAX_PREDICTION_LENGTH,
    )  # fmt: skip
