"""Splits a text in two at a paragraph, learned and measured, and makes the text on which q and k are refitted.

What the language donors learn and what the study measures must not overlap. The calibration text is of what a donor
knows: the learned part, and the calculations in words that it learned too.

By hand:
  .venv/bin/python -m study.split_english --text texts/calibration.txt --learned-share 0.85 --output-dir resources/study/texts
"""

import argparse
import random
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.demo.prompt_texts import ANSWER_END
from scripts.demo.whole_directory import whole_directory
from study.sums import ALL_CALCULATIONS

OUTPUT_NAMES = {"learned.txt", "measured.txt", "calibration.txt"}
# One conversation behind so many paragraphs: the part that calibrate.py reads has most of them, of all operations.
NUM_PARAGRAPHS_PER_CALCULATION = 2
SEED_OF_ORDER = 0


def split(text: str, learned_share: float) -> tuple[str, str]:
    """The two parts, cut at the first blank line behind the share."""
    cut = text.find("\n\n", int(len(text) * learned_share))
    if not 0 < learned_share < 1 or cut < 0:
        raise UserError(
            f"learned_share: {learned_share} leaves nothing to measure or to learn; expected for example 0.85"
        )
    return text[:cut] + "\n", text[cut:].lstrip("\n")


def with_calculations(english: str) -> str:
    """The text's paragraphs, with a conversation about a calculation behind each few of them."""
    calculations = random.Random(SEED_OF_ORDER).sample(ALL_CALCULATIONS, len(ALL_CALCULATIONS))
    conversations = iter((c.text_before_answer + c.answer + ANSWER_END).rstrip("\n") for c in calculations)
    paragraphs = []
    for number, paragraph in enumerate(english.split("\n\n"), start=1):
        paragraphs.append(paragraph)
        if number % NUM_PARAGRAPHS_PER_CALCULATION == 0 and (conversation := next(conversations, None)):
            paragraphs.append(conversation)
    return "\n\n".join([*paragraphs, *conversations])


def main() -> None:
    """Reads the arguments and writes the three texts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--learned-share", required=True, type=float)
    parser.add_argument("--output-dir", required=True, type=Path)
    arguments = parser.parse_args()
    learned, measured = split(arguments.text.read_text(encoding="utf-8"), arguments.learned_share)
    texts = {"learned.txt": learned, "measured.txt": measured, "calibration.txt": with_calculations(learned)}
    with whole_directory(arguments.output_dir, OUTPUT_NAMES) as directory:
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_program(main)
