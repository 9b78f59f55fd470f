"""Small benchmarks, answers and judgements for the tests of the evaluation."""

import base64
import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from scripts.evaluate.answer_log import Answer
from scripts.evaluate.judgements import Judgement
from scripts.evaluate.provenance import Provenance, ServeIdentity
from scripts.evaluate.records import Record
from scripts.evaluate.settings import NativeSettings, VlmevalkitSettings
from scripts.questions.tables import Question
from scripts.serve.settings import ServeSettings

# Of `evaluate.serve.flags`, which must have them.
NEUTRAL_DECODING = {"repetition_penalty": 1.0, "top_k": -1, "top_p": 1.0}
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
    """VLMEvalKit's judgement of `prediction` when B is right."""
    options = {"A": "1", "B": "2", "C": "3", "D": "4"}
    said = (
        prediction if extracted else "Failed in Prefetch, no GPT-based answer matching under `exact_matching` policy."
    )
    verdict = Judgement(index, prediction, options, "B", float(extracted == "B"), extracted, log=f"Match Log: {said}. ")
    return replace(verdict, **changes)


def serve_settings(**changes: Any) -> ServeSettings:
    """One server by transformers; `flags` among the changes are added to the neutral ones."""
    flags = {**NEUTRAL_DECODING, **changes.pop("flags", {})}
    return replace(ServeSettings("transformers", 1, 1, {}, flags, 300), **changes)


def vlmevalkit_settings(**changes: Any) -> VlmevalkitSettings:
    """Four requests under way, at temperature 0."""
    return replace(VlmevalkitSettings(-1, "exact_matching", 8, "all", 4, False, 0, False), **changes)


def native_settings(**changes: Any) -> NativeSettings:
    """The same for the native backend."""
    prompt = "{question}\n{options}\nOne of {letters}."
    return replace(NativeSettings(4, prompt, "modelscope", 8, "{question}", 0), **changes)


def provenance(model: str, **changes: Any) -> Provenance:
    """Where the records of a model come from; the same for each but for its checkpoint."""
    about = Provenance(
        model=model,
        model_dir=f"results/{model}",
        checkpoint_sha256=model.encode().hex(),
        harness="vlmevalkit",
        benchmark="digits",
        benchmark_md5="ab",
        control="none",
        shuffled_by_seed=None,
        serve=ServeIdentity("transformers", {"MAX_PIXELS": 3136}, {"max_new_tokens": 16}),
        settings={"temperature": 0, "max_tokens": 16},
        versions={"torch": "2.13.0"},
        backend="transformers",
        seeds=[0],
        num_questions=15,
        records_sha256="cd",
        num_asked_before=0,
        startup_s=4.5,
        wall_time_s=12.5,
        questions_per_s=2.0,
    )
    return replace(about, **changes)


def record(index: int, **changes: Any) -> Record:
    """Every other question is right; two subjects in one discipline; the first five are of a dev split."""
    is_right = bool(changes.get("correct", index % 2 == 1))
    about = Record(
        index=str(index),
        split="dev" if index < 5 else "test",
        discipline="digits",
        subject="odd" if index % 2 else "even",
        question="Which?",
        options={"A": "1", "B": "2"},
        answer="B",
        prediction="B",
        extracted="B",
        score=float(is_right),
        correct=is_right,
        metric="accuracy",
        status="answered",
        seed=0,
        image_sha256=f"{index}",
    )
    return replace(about, **changes)


def records(**changes: Any) -> list[Record]:
    """15 questions."""
    return [record(index, **changes) for index in range(15)]
