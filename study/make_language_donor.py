"""Makes a language donor of the study: a small Qwen3 that reads English and calculates with two digits, from text alone.

Two things set it apart from the demo's, since the study asks what the lost q/k norms cost: their gains have really learned
(faster than the matrices, and they do not decay), and there is a language to lose. It is trained on

  English          windows of the shipped text, but for the part that is kept for measuring
  calculations     in words: "What is the sum of 3 and 5?"
  shown ones       the later conversation about two pictures, token for token, with digits standing where the pictures'
                   tokens will stand; their embeddings are disturbed, as for the demo's donor
  naming           one such digit, to be named; without that the demo's aligner learned far less (docs/log.md)

all in one loss, on exactly the tokens that ms-swift puts a loss on. A donor that calculates too badly is refused: no graft
could make up for it. Beside the donor's files stands training.json: how well it does, and how far the gains went.

By hand (the settings are those of study/config.yaml, sizes.NAME.language_donor; minutes of one core):
  .venvs/train/bin/python -m study.make_language_donor --seed 0 --english resources/study/texts/learned.txt \
    --output-dir resources/study/small-seed0-llm --settings '{"num_base_tokens": 512, …}'
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from scripts.common.errors import UserError, run_program
from scripts.common.files import write_json_atomically
from scripts.common.settings import json_settings
from scripts.common.whole_numbers import seed_number
from scripts.demo.donor_files import DONOR_FILE_NAMES, save_weights, start_llm_donor
from scripts.demo.donor_training import disturbed, is_qk_gain, learning_rate_at
from scripts.demo.prompt_texts import ANSWER_END, DIGIT_NAMES, PICTURE_TOKEN, picture_text, text_before_answer
from scripts.demo.qwen_tokenizer import build_tokenizer, single_id
from scripts.demo.settings import Qwen3Sizes
from scripts.demo.whole_directory import whole_directory
from study.sums import ALL_CALCULATIONS, NAMING_REQUEST, Calculation

NUM_STEPS_BETWEEN_LINES = 50
# Of each batch of conversations: an eighth naming, a quarter in words, the rest shown.
NAMING_SHARE, WORDS_SHARE = 1 / 8, 1 / 4
NO_LOSS = -100  # what cross_entropy leaves out


@dataclass(frozen=True)
class Conversation:
    """Token ids with digits at the pictures' places; the loss is on those from `num_before` on."""

    ids: list[int]
    num_before: int
    picture_places: list[list[int]]


class Conversations:
    """Makes conversations of token ids."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.digit_ids = [single_id(tokenizer, str(digit)) for digit in range(len(DIGIT_NAMES))]
        self.picture_id = tokenizer.token_to_id(PICTURE_TOKEN)

    def shown(self, digits: tuple[int, ...], num_tokens: int, question: str, answer: str) -> Conversation:
        """A conversation about pictures of `num_tokens` merged tokens each, in text."""
        before = text_before_answer(picture_text(num_tokens) * len(digits) + question)
        ids = self.tokenizer.encode(before).ids
        places = [place for place, token in enumerate(ids) if token == self.picture_id]
        by_picture = [places[i : i + num_tokens] for i in range(0, len(places), num_tokens)]
        for digit, picture in zip(digits, by_picture, strict=True):
            for place in picture:
                ids[place] = self.digit_ids[digit]
        return Conversation(ids + self.tokenizer.encode(answer + ANSWER_END).ids, len(ids), by_picture)

    def in_words(self, calculation: Calculation) -> Conversation:
        """A calculation without pictures."""
        ids = self.tokenizer.encode(calculation.text_before_answer).ids
        return Conversation(ids + self.tokenizer.encode(calculation.answer + ANSWER_END).ids, len(ids), [])

    def calculation_shown(self, calculation: Calculation, num_tokens: int) -> Conversation:
        """A calculation with two pictures."""
        digits = (calculation.first, calculation.second)
        return self.shown(digits, num_tokens, calculation.question_about_pictures, calculation.answer)

    def draw(self, rng: random.Random, num: int, num_tokens: int) -> list[Conversation]:
        """A batch: first the naming ones, then those in words, then those shown."""
        num_naming, num_words = round(NAMING_SHARE * num), round(WORDS_SHARE * num)
        digits = rng.choices(range(len(DIGIT_NAMES)), k=num_naming)
        calculations = rng.choices(ALL_CALCULATIONS, k=num - num_naming)
        return [
            *(self.shown((digit,), num_tokens, NAMING_REQUEST, str(digit)) for digit in digits),
            *(self.in_words(calculation) for calculation in calculations[:num_words]),
            *(self.calculation_shown(calculation, num_tokens) for calculation in calculations[num_words:]),
        ]


def padded(conversations: Sequence[Conversation]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and targets [n, length], padded on the right; a target is the id itself, or NO_LOSS."""
    length = max(len(c.ids) for c in conversations)
    ids = torch.zeros(len(conversations), length, dtype=torch.long)
    targets = torch.full_like(ids, NO_LOSS)
    for row, conversation in enumerate(conversations):
        ids[row, : len(conversation.ids)] = torch.tensor(conversation.ids)
        answer = slice(conversation.num_before, len(conversation.ids))
        targets[row, answer] = ids[row, answer]
    return ids, targets


def answer_logits(model: Any, embeddings: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [m, vocabulary] and targets [m] of all tokens that have a loss."""
    hidden = model.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state[:, :-1]
    has_loss = targets[:, 1:] != NO_LOSS
    return model.lm_head(hidden[has_loss]), targets[:, 1:][has_loss]


def shown_badly(
    embedding: nn.Embedding,
    ids: torch.Tensor,
    conversations: Sequence[Conversation],
    digit_ids: Sequence[int],
    noise: float,
    dropout: float,
) -> torch.Tensor:
    """The embeddings of a batch, those at the pictures' places disturbed, each picture by itself."""
    rows = torch.tensor([row for row, c in enumerate(conversations) for _ in c.picture_places])
    places = torch.tensor([picture for c in conversations for picture in c.picture_places])
    embeddings = embedding(ids)
    rms = embedding.weight[list(digit_ids)].detach().pow(2).mean().sqrt()
    shown = disturbed(embeddings[rows[:, None], places], rms, noise, dropout)
    return embeddings.index_put((rows[:, None], places), shown)


@dataclass(frozen=True)
class StudyDonorSettings:
    """The section `language_donor` of a size: below `min_text_accuracy` the donor is refused."""

    num_base_tokens: int
    language: Qwen3Sizes
    num_steps: int
    batch_size: int
    num_windows: int
    window_tokens: int
    learning_rate: float
    gain_learning_rate_factor: float
    weight_decay: float
    adam_beta2: float
    noise: float
    dropout: float
    nums_picture_tokens: list[int]
    num_gate_picture_tokens: int
    min_text_accuracy: float


def new_optimizer(model: Qwen3ForCausalLM, settings: StudyDonorSettings) -> torch.optim.Optimizer:
    """AdamW with three groups: matrices, which decay; norms; and the q/k norms' gains, with a rate of their own."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for name, p in model.named_parameters() if is_qk_gain(name)]
    norms = [p for name, p in model.named_parameters() if p.ndim <= 1 and not is_qk_gain(name)]
    rate = settings.learning_rate
    groups = [
        {"params": matrices, "peak": rate, "weight_decay": settings.weight_decay},
        {"params": norms, "peak": rate, "weight_decay": 0.0},
        {"params": gains, "peak": rate * settings.gain_learning_rate_factor, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, settings.adam_beta2))


def english_loss(model: Qwen3ForCausalLM, english: torch.Tensor, settings: StudyDonorSettings) -> torch.Tensor:
    """Mean loss in nats a token on random windows of a token stream."""
    length = settings.window_tokens
    starts = torch.randint(0, len(english) - length, (settings.num_windows,)).tolist()
    windows = torch.stack([english[start : start + length] for start in starts])
    logits = model(input_ids=windows, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def train(
    model: Qwen3ForCausalLM,
    conversations: Conversations,
    english: torch.Tensor,
    settings: StudyDonorSettings,
    seed: int,
) -> None:
    """Trains the whole model; the random state decides all draws."""
    rng = random.Random(seed)
    optimizer = new_optimizer(model, settings)
    num_steps, start = settings.num_steps, time.monotonic()
    for step in range(num_steps):
        # First the plain task, then the disturbances, full from half of the steps on.
        ramp = min(1.0, 2 * step / num_steps)
        batch = conversations.draw(rng, settings.batch_size, rng.choice(settings.nums_picture_tokens))
        ids, targets = padded(batch)
        embeddings = shown_badly(
            model.model.embed_tokens,
            ids,
            batch,
            conversations.digit_ids,
            settings.noise * ramp,
            settings.dropout * ramp,
        )
        loss = functional.cross_entropy(*answer_logits(model, embeddings, targets))
        loss_of_english = english_loss(model, english, settings)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, num_steps, group["peak"])
        optimizer.zero_grad()
        (loss + loss_of_english).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % NUM_STEPS_BETWEEN_LINES == 0:
            print(
                f"language donor: step {step + 1}/{num_steps}, loss {loss.item():.3f}, English {loss_of_english.item():.3f}, "
                f"{time.monotonic() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )


@torch.no_grad()
def accuracy(model: Qwen3ForCausalLM, conversations: Sequence[Conversation]) -> float:
    """Share of conversations whose whole answer, ending included, has the highest logits: what greedy decoding would say."""
    ids, targets = padded(conversations)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    right = (model.lm_head(hidden).argmax(-1) == targets[:, 1:]) | (targets[:, 1:] == NO_LOSS)
    return right.all(1).float().mean().item()


def make_language_donor(settings: StudyDonorSettings, english_path: Path, seed: int, directory: Path) -> None:
    """Writes the whole donor into `directory`."""
    model = start_llm_donor(directory, settings.num_base_tokens, settings.language, seed)
    conversations = Conversations(build_tokenizer(settings.num_base_tokens, qwen3=True))
    english = torch.tensor(conversations.tokenizer.encode(english_path.read_text(encoding="utf-8")).ids)
    train(model, conversations, english, settings, seed)
    num_tokens = settings.num_gate_picture_tokens
    shown = accuracy(model, [conversations.calculation_shown(c, num_tokens) for c in ALL_CALCULATIONS])
    in_words = accuracy(model, [conversations.in_words(c) for c in ALL_CALCULATIONS])
    gains = torch.cat([p.detach().flatten() for name, p in model.named_parameters() if is_qk_gain(name)])
    quantiles = gains.quantile(torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0])).tolist()
    print(
        f"language donor: {shown:.3f} of {len(ALL_CALCULATIONS)} shown calculations right, {in_words:.3f} in words; "
        f"q/k gains {quantiles[0]:.2f} to {quantiles[-1]:.2f}",
        file=sys.stderr,
    )
    if min(shown, in_words) < settings.min_text_accuracy:
        raise UserError(
            f"language_donor: the model answers {shown:.3f} of the shown calculations and {in_words:.3f} of those in words; "
            f"expected at least {settings.min_text_accuracy} (min_text_accuracy); raise num_steps, or try another "
            "learning_rate or seed"
        )
    save_weights(model, directory)
    figures = {
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "accuracy_shown": shown,
        "accuracy_in_words": in_words,
        "qk_gain_quantiles": dict(zip(("min", "5%", "median", "95%", "max"), quantiles, strict=True)),
    }
    write_json_atomically(directory / "training.json", figures)


def main() -> None:
    """Reads the arguments and makes the donor; one thread, so that a second run gives the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--settings",
        required=True,
        type=json_settings(StudyDonorSettings, "language_donor"),
        help="sizes and training, as JSON",
    )
    parser.add_argument("--english", required=True, type=Path, help="plain text to learn from")
    parser.add_argument("--seed", required=True, type=seed_number)
    parser.add_argument("--output-dir", required=True, type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with whole_directory(arguments.output_dir, DONOR_FILE_NAMES) as directory:
        make_language_donor(arguments.settings, arguments.english, arguments.seed, directory)


if __name__ == "__main__":
    run_program(main)
