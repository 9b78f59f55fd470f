"""Makes the demo's language donor: a small Qwen3 that answers four-choice questions about digits, from text alone.

Its text is the later conversation token for token, with digits in the places of a picture's tokens. Their embeddings are
disturbed, and some replaced by noise, so that it learns to take the digit from whichever token shows it; the number of
options grows from two to four. Every few batches it only names the digit; without that the aligner learns far less
(docs/log.md). It is trained on exactly the tokens that ms-swift puts a loss on, the line break at
the end too. A donor below the demanded accuracy is refused: the aligner could never make up for it.

By hand (a minute on one core): .venv/bin/python scripts demo.make_demo_language_donor --config config/demo.yaml
"""

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from scripts.common.errors import UserError, run_program
from scripts.common.logger import log
from scripts.common.settings import json_settings
from scripts.common.units import duration
from scripts.common.whole_numbers import seed_number
from scripts.demo.donor_files import DONOR_FILE_NAMES, save_weights, start_llm_donor
from scripts.demo.donor_training import disturbed, learning_rate_at
from scripts.demo.prompt_texts import (
    ANSWER_END,
    DIGIT_NAMES,
    LETTERS,
    NAMING_REQUEST,
    PICTURE_TOKEN,
    picture_text,
    question_text,
    text_before_answer,
)
from scripts.demo.qwen_tokenizer import single_id
from scripts.demo.settings import LanguageDonorSettings
from scripts.demo.whole_directory import whole_directory

NUM_STEPS_BETWEEN_LINES = 50
NUM_GATE_QUESTIONS = 1000

SEED_OF_GATE = 5  # the questions of the gate are the same for every donor


@dataclass(frozen=True)
class Template:
    """A conversation as token ids with two kinds of gaps: the picture's places and the options'."""

    ids: torch.Tensor
    picture_places: torch.Tensor
    option_places: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Whole conversations: ids [n, length] with digits at the picture's places and the answer before the ending."""

    ids: torch.Tensor
    picture_places: torch.Tensor


class Questions:
    """Draws conversations about random digits; with no options the digit is only to be named."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.digit_ids = torch.tensor([single_id(self.tokenizer, str(digit)) for digit in range(len(DIGIT_NAMES))])
        self.letter_ids = torch.tensor([single_id(self.tokenizer, letter) for letter in LETTERS])
        self.end_ids = torch.tensor(tokenizer.encode(ANSWER_END).ids)
        self.templates: dict[tuple[int, int], Template] = {}

    def template(self, num_options: int, num_picture_tokens: int) -> Template:
        """The conversation for so many options and picture tokens."""
        key = (num_options, num_picture_tokens)
        if key not in self.templates:
            question = question_text([str(digit) for digit in range(num_options)]) if num_options else NAMING_REQUEST
            text = text_before_answer(picture_text(num_picture_tokens) + question)
            ids = torch.tensor(self.tokenizer.encode(text).ids)
            picture_places = (ids == self.tokenizer.token_to_id(PICTURE_TOKEN)).nonzero().flatten()
            option_places = torch.isin(ids, self.digit_ids).nonzero().flatten()
            assert len(picture_places) == num_picture_tokens and len(option_places) == num_options
            self.templates[key] = Template(ids, picture_places, option_places)
        return self.templates[key]

    def draw(self, num: int, num_options: int, num_picture_tokens: int) -> Batch:
        """`num` conversations, each with its own digit and options, in text: the digit in place of its picture."""
        template = self.template(num_options, num_picture_tokens)
        digits = torch.randint(len(DIGIT_NAMES), (num,))
        if num_options == 0:
            before = template.ids.repeat(num, 1)
            before[:, template.picture_places] = self.digit_ids[digits][:, None]
            return self.answered(before, template, self.digit_ids[digits])
        order = torch.rand(num, len(DIGIT_NAMES)).scatter_(1, digits[:, None], -1.0).argsort(1)[:, :num_options]
        options = order.gather(1, torch.rand(num, num_options).argsort(1))
        answers = (options == digits[:, None]).int().argmax(1)
        before = template.ids.repeat(num, 1)
        before[:, template.picture_places] = self.digit_ids[digits][:, None]
        before[:, template.option_places] = self.digit_ids[options]
        return self.answered(before, template, self.letter_ids[answers])

    def answered(self, before: torch.Tensor, template: Template, answer_ids: torch.Tensor) -> Batch:
        """The conversations with their answers [n] and the ending."""
        ids = torch.cat([before, answer_ids[:, None], self.end_ids.repeat(len(before), 1)], 1)
        return Batch(ids, template.picture_places)


def disturbed_embeddings(
    embedding: nn.Embedding, batch: Batch, digit_ids: torch.Tensor, noise: float, dropout: float
) -> torch.Tensor:
    """The batch's embeddings, those at the picture's places disturbed."""
    embeddings = embedding(batch.ids)
    rms = embedding.weight[digit_ids].detach().pow(2).mean().sqrt()
    shown = disturbed(embeddings[:, batch.picture_places], rms, noise, dropout)
    return embeddings.index_copy(1, batch.picture_places, shown)


def answer_logits(model: Qwen3ForCausalLM, embeddings: torch.Tensor, num_trained: int) -> torch.Tensor:
    """Logits for the last `num_trained` tokens only, which is where the loss is: [n, num_trained, vocabulary]."""
    hidden = model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return model.lm_head(hidden[:, -num_trained - 1 : -1])


def new_optimizer(model: Qwen3ForCausalLM, settings: LanguageDonorSettings) -> torch.optim.Optimizer:
    """AdamW, without weight decay on the norms."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    norms = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, settings.adam_beta2))


def train(model: Qwen3ForCausalLM, questions: Questions, settings: LanguageDonorSettings, seed: int) -> None:
    """Trains the whole model; the random state decides all draws."""
    rng = random.Random(seed)
    optimizer = new_optimizer(model, settings)
    num_trained = 1 + len(questions.end_ids)
    # The ending is learned at once; the answer is what takes the time.
    weights = torch.tensor([1.0] + [settings.ending_weight] * len(questions.end_ids))
    start, recent = time.monotonic(), 0.0
    for step in range(settings.num_steps):
        early = step < settings.num_curriculum_steps
        is_naming = step % settings.num_steps_per_naming == settings.num_steps_per_naming - 1
        num_options = 0 if is_naming else rng.randint(2, len(LETTERS)) if early else len(LETTERS)
        batch = questions.draw(settings.batch_size, num_options, rng.choice(settings.nums_picture_tokens))
        ramp = min(1.0, step / max(1, 2 * settings.num_curriculum_steps))
        embeddings = disturbed_embeddings(
            model.model.embed_tokens, batch, questions.digit_ids, settings.noise * ramp, settings.dropout * ramp
        )
        logits = answer_logits(model, embeddings, num_trained)
        losses = functional.cross_entropy(logits.transpose(1, 2), batch.ids[:, -num_trained:], reduction="none")
        loss = (losses.mean(0) * weights).sum()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings.num_steps, settings.learning_rate)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not is_naming:
            right = (logits[:, 0].argmax(-1) == batch.ids[:, -num_trained]).float().mean().item()
            recent = 0.95 * recent + 0.05 * right
        if (step + 1) % NUM_STEPS_BETWEEN_LINES == 0:
            log(
                f"language donor: step {step + 1}/{settings.num_steps}, answer loss {losses[:, 0].mean().item():.3f}, "
                f"recently right {recent:.2f}, {duration(time.monotonic() - start)}"
            )


@torch.no_grad()
def text_accuracy(model: Qwen3ForCausalLM, questions: Questions, num_picture_tokens: int) -> float:
    """Share of undisturbed four-choice questions whose whole answer, ending included, has the highest logits."""
    torch.manual_seed(SEED_OF_GATE)
    batch = questions.draw(NUM_GATE_QUESTIONS, len(LETTERS), num_picture_tokens)
    num_trained = 1 + len(questions.end_ids)
    logits = answer_logits(model, model.model.embed_tokens(batch.ids), num_trained)
    right = (logits.argmax(-1) == batch.ids[:, -num_trained:]).all(1)
    return right.float().mean().item()


def make_language_donor(settings: LanguageDonorSettings, seed: int, directory: Path) -> None:
    """Writes the whole donor into `directory`."""
    model = start_llm_donor(directory, settings.num_base_tokens, settings.language, seed)
    questions = Questions(Tokenizer.from_file(str(directory / "tokenizer.json")))
    train(model, questions, settings, seed)
    accuracy = text_accuracy(model, questions, settings.num_gate_picture_tokens)
    log(f"language donor: {accuracy:.3f} of {NUM_GATE_QUESTIONS} questions answered right")
    if accuracy < settings.min_text_accuracy:
        raise UserError(
            f"demo.language_donor: the model answers {accuracy:.3f} of the text questions; expected at least "
            f"{settings.min_text_accuracy} (min_text_accuracy); raise num_steps or num_curriculum_steps, or try "
            "another learning_rate or seed"
        )
    save_weights(model, directory)


def main() -> None:
    """Reads the arguments and makes the donor; one thread, so that a second run gives the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--settings",
        required=True,
        type=json_settings(LanguageDonorSettings, "demo.language_donor"),
        help="the config's `demo.language_donor`, as JSON",
    )
    parser.add_argument("--seed", required=True, type=seed_number)
    parser.add_argument("--output-dir", required=True, type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with whole_directory(arguments.output_dir, DONOR_FILE_NAMES) as directory:
        make_language_donor(arguments.settings, arguments.seed, directory)


if __name__ == "__main__":
    run_program(main)
