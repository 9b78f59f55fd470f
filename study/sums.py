"""The study's task, word for word, for everything that must agree on it: calculate with two digits, shown or in words.

It leans on the language model: pictures give half of the answer, the other half was learned from text.
"""

import itertools
from dataclasses import dataclass

from scripts.demo.prompt_texts import DIGIT_NAMES, text_before_answer

OPERATIONS = {"sum": lambda a, b: a + b, "difference": lambda a, b: abs(a - b), "product": lambda a, b: a * b}
NAMING_REQUEST = "Name the digit."


@dataclass(frozen=True)
class Calculation:
    """One operation on two digits; the answer is a number in figures."""

    operation: str
    first: int
    second: int

    @property
    def answer(self) -> str:
        return str(OPERATIONS[self.operation](self.first, self.second))

    @property
    def question_about_pictures(self) -> str:
        """What follows the pictures of the two digits."""
        return f"What is the {self.operation}?"

    @property
    def text_before_answer(self) -> str:
        """The whole conversation in words, without pictures."""
        return text_before_answer(f"What is the {self.operation} of {self.first} and {self.second}?")


ALL_CALCULATIONS = tuple(
    itertools.starmap(Calculation, itertools.product(OPERATIONS, range(len(DIGIT_NAMES)), range(len(DIGIT_NAMES))))
)
