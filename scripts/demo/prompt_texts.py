"""The demo's question, word for word, for everything that must agree on it.

The training rows, the language donor's text and the benchmark show the model the same tokens: a donor that never saw
the later prompt, or an answer's ending that the loss covers, costs the aligner most of what it could learn.
"""

import random
from collections.abc import Sequence

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "ABCD"
QUESTION = "Which digit?"
NAMING_REQUEST = "Name the digit."

# What ms-swift's template for Qwen2.5-VL puts around a question (swift/template/templates/utils.py: DEFAULT_SYSTEM).
SYSTEM_PROMPT = "You are a helpful assistant."

# The loss covers the answer and all of this, the line break too (swift's ChatML suffix).
ANSWER_END = "<|im_end|>\n"
PICTURE_START, PICTURE_TOKEN, PICTURE_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"

# Handwritten digits with a closed loop; the others are open strokes.
_DIGITS_WITH_A_LOOP = frozenset({0, 6, 8, 9})


def question_text(options: Sequence[str]) -> str:
    """The question as VLMEvalKit words it for a multiple-choice TSV (vlmeval/dataset/image_mcq.py: build_prompt)."""
    lines = [f"Question: {QUESTION}", "Options:"]
    lines += [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([*lines, "Please select the correct answer from the options above. \n"])


def text_before_answer(user_content: str) -> str:
    """The conversation up to where the model answers, as ms-swift's template for Qwen2.5-VL writes it."""
    return (
        f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
        f"<|im_start|>user\n{user_content}<|im_end|>\n<|im_start|>assistant\n"
    )


def picture_text(num_tokens: int) -> str:
    """A picture of `num_tokens` merged tokens in the text, before its embeddings are put in."""
    return PICTURE_START + PICTURE_TOKEN * num_tokens + PICTURE_END


def draw_options(digit: int, rng: random.Random, num_options: int = len(LETTERS)) -> list[str]:
    """The true digit and others, in random order."""
    others = [other for other in range(len(DIGIT_NAMES)) if other != digit]
    options = [digit, *rng.sample(others, num_options - 1)]
    rng.shuffle(options)
    return [str(option) for option in options]


def subject_of(digit: int) -> str:
    """The finer group of the score table."""
    return DIGIT_NAMES[digit]


def discipline_of(digit: int) -> str:
    """The coarser group of the score table."""
    return "with a loop" if digit in _DIGITS_WITH_A_LOOP else "without a loop"
