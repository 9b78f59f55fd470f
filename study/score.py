"""Scores one model of the study: calculations about pictures and in words, and how well it still knows its English.

A question counts as right when the whole answer, ending included, has the highest logit at each of its places: that is what
greedy decoding would log, without decoding. Asked are

  pictures        the test questions, by operation and by whether the calculation came in training
  shuffled        the same ones about the pictures of another question: what is right then was guessed
  words           all calculations in words, no picture
  English         the perplexity of the text that neither donor nor graft has read

A language donor, which sees no pictures, is scored on the last two alone.

By hand:
  .venvs/train/bin/python -m study.score --model-dir results/study/…/stage2_1e-3/checkpoint \
    --questions resources/study/sums/test.jsonl --english resources/study/texts/measured.txt --output score.json
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from scripts.common.errors import UserError, run_program
from scripts.common.files import write_json_atomically
from scripts.common.input_files import read_json
from scripts.common.logger import log
from scripts.data.rows import IMAGE_TAG
from scripts.demo.prompt_texts import picture_text, text_before_answer
from scripts.graft.own_code import is_trusted
from scripts.graft.texts import load_tokenizer
from study.sums import ALL_CALCULATIONS

ANSWER_END = "<|im_end|>"  # decoding stops here
BATCH_SIZE = 50
WINDOW_TOKENS = 128


@dataclass(frozen=True)
class Question:
    """What is asked, the answer, and the pictures if there are any."""

    before: str
    answer: str
    picture_paths: tuple[str, ...] = ()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The test questions as make_sums.py wrote them."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def questions_about_pictures(rows: Sequence[Mapping[str, Any]], shift: int) -> list[Question]:
    """Each row's question about the pictures of the row `shift` further on."""
    questions = []
    for place, row in enumerate(rows):
        paths = rows[(place + shift) % len(rows)]["images"]
        content = row["messages"][0]["content"].replace(IMAGE_TAG, picture_text(1))
        questions.append(Question(text_before_answer(content), row["answer"], tuple(paths)))
    return questions


def encode(
    questions: Sequence[Question], tokenizer: Any, processor: Any
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The inputs of a batch, padded on the right, and which tokens are the answers' [n, length]."""
    texts = [question.before + question.answer + ANSWER_END for question in questions]
    if questions[0].picture_paths:
        images = [Image.open(path).convert("RGB") for question in questions for path in question.picture_paths]
        inputs = processor(text=texts, images=images, padding=True, padding_side="right", return_tensors="pt")
    else:
        inputs = tokenizer(texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt")
    is_answer = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    ends = inputs["attention_mask"].sum(1).tolist()
    for row, (question, end) in enumerate(zip(questions, ends, strict=True)):
        num_tokens = len(tokenizer(question.answer + ANSWER_END, add_special_tokens=False).input_ids)
        is_answer[row, end - num_tokens : end] = True
    return dict(inputs), is_answer


def batches(questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
    """Consecutive questions."""
    return (questions[begin : begin + BATCH_SIZE] for begin in range(0, len(questions), BATCH_SIZE))


@torch.inference_mode()
def are_right(model: Any, questions: Sequence[Question], tokenizer: Any, processor: Any) -> list[bool]:
    """Whether each question is answered right, in order."""
    right: list[bool] = []
    for batch in batches(questions):
        inputs, is_answer = encode(batch, tokenizer, processor)
        said = model(**inputs).logits[:, :-1].argmax(-1)
        as_wanted = (said == inputs["input_ids"][:, 1:]) | ~is_answer[:, 1:]
        right += as_wanted.all(1).tolist()
    return right


@torch.inference_mode()
def perplexity(model: Any, text: str, tokenizer: Any) -> float:
    """exp of the mean loss in nats a token, over windows of the text that do not overlap; the last, shorter one is left out."""
    ids = torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)
    windows = ids[: len(ids) // WINDOW_TOKENS * WINDOW_TOKENS].view(-1, WINDOW_TOKENS)
    losses = [
        functional.cross_entropy(model(input_ids=batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()).item()
        * len(batch)
        for batch in windows.split(BATCH_SIZE)
    ]
    return math.exp(sum(losses) / len(windows))


def share(right: Sequence[bool]) -> float:
    """The share that is right."""
    return sum(right) / len(right)


def by_group(rows: Sequence[Mapping[str, Any]], right: Sequence[bool]) -> dict[str, float]:
    """Shares over all questions, by whether the calculation came in training, and by operation."""
    groups: dict[str, list[bool]] = {"overall": list(right)}
    for row, is_right in zip(rows, right, strict=True):
        groups.setdefault("trained" if row["is_trained"] else "untrained", []).append(is_right)
        groups.setdefault(row["operation"], []).append(is_right)
    return {name: share(members) for name, members in groups.items()}


def load(directory: Path) -> tuple[Any, Any]:
    """The model, and its processor if it sees; raises UserError unless every tensor found its place."""
    trust = is_trusted(directory)
    sees = "vision_config" in read_json(directory / "config.json")
    auto_class = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model, info = auto_class.from_pretrained(
        directory.absolute(), dtype=torch.float32, trust_remote_code=trust, output_loading_info=True
    )
    if faults := {kind: sorted(map(str, names)) for kind, names in info.items() if names}:
        raise UserError(f"{directory}: {faults} when loaded; expected nothing missing or left over; make it again")
    return model.eval(), AutoProcessor.from_pretrained(directory, trust_remote_code=trust) if sees else None


def score(model_dir: Path, questions_path: Path, english_path: Path) -> dict[str, Any]:
    """All figures of one model."""
    model, processor = load(model_dir)
    tokenizer = load_tokenizer(model_dir)
    in_words = [Question(c.text_before_answer, c.answer) for c in ALL_CALCULATIONS]
    result: dict[str, Any] = {
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "words": share(are_right(model, in_words, tokenizer, processor)),
        "perplexity": perplexity(model, english_path.read_text(encoding="utf-8"), tokenizer),
    }
    if processor:
        rows = read_rows(questions_path)
        for name, shift in (("pictures", 0), ("shuffled", len(rows) // 2)):
            right = are_right(model, questions_about_pictures(rows, shift), tokenizer, processor)
            result[name] = by_group(rows, right)
        log(
            f"{model_dir}: {result['pictures']['overall']:.3f} of {len(rows)} right, shuffled {result['shuffled']['overall']:.3f}"
        )
    log(f"{model_dir}: {result['words']:.3f} in words, perplexity {result['perplexity']:.2f}")
    return result


def main() -> None:
    """Reads the arguments, scores, writes; one thread, since several models are scored side by side."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model-dir", required=True, type=Path)
    parser.add_argument("--questions", required=True, type=Path, help="test.jsonl of make_sums.py")
    parser.add_argument("--english", required=True, type=Path, help="measured.txt of split_english.py")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_json_atomically(arguments.output, score(arguments.model_dir, arguments.questions, arguments.english))


if __name__ == "__main__":
    run_program(main)
