"""The sections `evaluate.vlmevalkit` and `evaluate.native`: how EvalScope's two harnesses ask.

The fields are in alphabetical order, as they stand in the records' provenance.
"""

import string
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class VlmevalkitSettings:
    """EvalScope's VLMEvalKit backend, by the names of its own configuration."""

    img_size: int
    judge: Literal["exact_matching"]
    max_tokens: int
    mode: Literal["all"]
    nproc: int  # requests under way
    reuse: bool
    temperature: float
    video_llm: bool

    def findings(self, where: str) -> Iterator[str]:
        """What would break a promise of the evaluation."""
        if self.reuse:
            yield f"{where}.reuse: true would take old answers for new ones; expected false"


@dataclass(frozen=True)
class NativeSettings:
    """EvalScope's native backend; the prompts are for the user's own tables."""

    batch_size: int  # requests under way
    choice_prompt: str
    hub: Literal["modelscope", "huggingface"]
    max_tokens: int
    open_prompt: str
    temperature: float

    def findings(self, where: str) -> Iterator[str]:
        """Prompts that cannot be filled, a line each."""
        needed_of = {"choice_prompt": ("question", "options"), "open_prompt": ("question",)}
        for key, needed in needed_of.items():
            if reason := _prompt_fault(getattr(self, key), needed):
                yield (
                    f"{where}.{key}: cannot be filled ({reason}); expected no fields but {{question}}, {{options}}, {{letters}}; "
                    "a brace that is meant as such is written twice: {{ }}"
                )

    def prompt(self, question: str, options: Mapping[str, str]) -> str:
        """The text that is asked: a question with its options by letter, or an open one."""
        return _filled(self.choice_prompt if options else self.open_prompt, question, options)


HarnessSettings = VlmevalkitSettings | NativeSettings

# By the harness (`evaluate.backend`), which is also the name of its section.
HARNESS_SETTINGS: dict[str, type[HarnessSettings]] = {"vlmevalkit": VlmevalkitSettings, "native": NativeSettings}


def _filled(prompt: str, question: str, options: Mapping[str, str]) -> str:
    lines = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return prompt.format(question=question, options=lines, letters=",".join(options))


def _prompt_fault(prompt: str, needed: Collection[str]) -> str | None:
    """Why a prompt cannot be filled, or would not show what is asked; None where all is well.

    Formats, as in `{question:>99}`, are refused: they can change a text, or make it as long as the memory.
    """
    try:
        parts = [part[1:] for part in string.Formatter().parse(prompt) if part[1] is not None]
        if formatted := [name for name, format_, conversion in parts if format_ or conversion]:
            return f"{{{formatted[0]}}} with a format"
        _filled(prompt, "", {})
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    missing = [name for name in needed if name not in [name for name, _, _ in parts]]
    return f"{{{missing[0]}}} is missing" if missing else None
