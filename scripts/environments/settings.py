"""The section `environments` of the configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

WITH_FLASH_ATTENTION = "train_flash_attn"


@dataclass(frozen=True)
class EnvironmentSettings:
    """`kind`: virtual environments, or one image that holds them all; `train`: the name of the one that trains."""

    kind: Literal["venv", "apptainer"]
    train: Literal["train", "train_flash_attn"]

    @property
    def has_flash_attention(self) -> bool:
        return self.train == WITH_FLASH_ATTENTION

    def directory(self, role: str) -> str:
        """Where a role's environment is, below the repository's root."""
        name = self.train if role == "train" else role
        return f".venvs/{name}" if self.kind == "venv" else f".venvs/image/{name}"

    def findings(self) -> Iterator[str]:
        """Contradictions within the section, one line each."""
        if self.has_flash_attention and self.kind == "apptainer":
            yield (
                f"environments.train: {self.train} contradicts kind apptainer, whose image has no compiler for it; write train "
                "with attn_impl: sdpa, or kind: venv"
            )


def serving_role(backend: str) -> str:
    """The role whose environment serves by a backend: vLLM has an environment of its own."""
    return "serve" if backend == "vllm" else "train"
