"""Small benchmarks, answers and judgements for the tests of the evaluation."""

import base64
import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from scripts.evaluate.records import Answer, Judgement
from scripts.questions.tables import Question

COLUMNS = ("index", "image", "question", "A", "B", "C", "D", "answer", "category", "l2-category", "split")


def picture(text: str) -> str:
    """A drawn picture of some text, as base64 PNG."""
    image = Image.new("RGB", (112, 112), "black")
    ImageDraw.Draw(image).text((40, 40), text, fill="white")
    data = io.BytesIO()
    image.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def benchmark_rows(num_questions: int) -> list[dict[str, str]]:
    """Questions about drawn digits in two splits; the right answer goes round the letters."""
    rows = []
    for number in range(num_questions):
        digits = [str((number + shift) % 10) for shift in range(4)]
        answer = "ABCD"[number % 4]
        options = dict(zip("ABCD", digits, strict=True))
        rows.append({
            "index": str(number), "image": picture(f"{options[answer]} {number}"), "question": "Which digit?", **options,
            "answer": answer, "category": "odd" if number % 2 else "even", "l2-category": "digits",
            "split": "dev" if number < num_questions // 3 else "test",
        })  # fmt: skip
    return rows


def write_rows(rows: list[dict[str, str]], path: Path, columns: tuple[str, ...] = COLUMNS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def question(index: str = "0", **changes: Any) -> Question:
    return replace(Question(index, "test", "digits", "even", "Which digit?", "ab" * 32), **changes)


def answer(index: str = "0", prediction: str = "B", **changes: Any) -> Answer:
    return replace(Answer(index, prediction, "stop", None), **changes)


def judgement(index: str = "0", prediction: str = "B", extracted: str | None = "B", **changes: Any) -> Judgement:
    """The verdict that VLMEvalKit gives on `prediction` when B is right."""
    options = {"A": "1", "B": "2", "C": "3", "D": "4"}
    said = (
        prediction if extracted else "Failed in Prefetch, no GPT-based answer matching under `exact_matching` policy."
    )
    verdict = Judgement(index, prediction, options, "B", float(extracted == "B"), extracted, log=f"Match Log: {said}. ")
    return replace(verdict, **changes)
