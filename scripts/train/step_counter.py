"""Counts what goes into the model during one step. Needs torch."""

from typing import Any

import torch


class StepCounter:
    """Samples and tokens of one step, counted by a forward pre-hook of the model."""

    def __init__(self) -> None:
        self.num_samples = 0
        self._num_tokens: list[torch.Tensor | int] = []

    def count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The forward pre-hook. Where a batch was joined into one row, `cu_seq_lens_q` has the bounds of its samples."""
        if not (module.training and torch.is_grad_enabled()):
            return
        input_ids = kwargs["input_ids"]
        bounds = kwargs.get("cu_seq_lens_q")
        self.num_samples += len(bounds) - 1 if bounds is not None and len(input_ids) == 1 else len(input_ids)
        mask = kwargs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.shape == input_ids.shape:
            self._num_tokens.append(mask.sum())  # stays on the GPU until `take`
        else:
            self._num_tokens.append(input_ids.numel())

    def take(self) -> tuple[int, int]:
        """Samples and tokens since the last call."""
        num_samples, num_tokens = self.num_samples, sum(int(count) for count in self._num_tokens)
        self.num_samples, self._num_tokens = 0, []
        return num_samples, num_tokens


def peak_gpu_memory_gib() -> float | None:
    """The most that torch has reserved on this rank's GPU since the process began; None on a CPU."""
    return round(torch.cuda.max_memory_reserved() / 2**30, 2) if torch.cuda.is_available() else None
