"""The sections `evaluate.vlmevalkit` and `evaluate.native`: how EvalScope's two harnesses ask.

The fields are in alphabetical order, as they stand in the records' provenance.
"""

from collections.abc import Iterator, Mapping
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
        for key, prompt in (("choice_prompt", self.choice_prompt), ("open_prompt", self.open_prompt)):
            if reason := _reason_not_to_fill(prompt):
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


def _reason_not_to_fill(prompt: str) -> str | None:
    """Why `str.format` cannot fill a prompt, or None."""
    try:
        _filled(prompt, "", {})
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None
