"""What the trainings of small donors share: a learning rate, and digits shown as imperfectly as by an aligner. Needs torch."""

import math

import torch

NUM_WARMUP_STEPS = 50


def learning_rate_at(step: int, num_steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine down to zero."""
    progress = max(0, step - NUM_WARMUP_STEPS) / max(1, num_steps - NUM_WARMUP_STEPS)
    return peak * min(1, (step + 1) / NUM_WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * progress))


def disturbed(shown: torch.Tensor, rms: torch.Tensor, noise: float, dropout: float) -> torch.Tensor:
    """Embeddings shown in place of pictures, [pictures, tokens, hidden], with noise added; some tokens, never all, are noise.

    `noise` is the largest ratio of noise to `rms`, the embeddings' root mean square; each picture draws its own, and its own
    share of lost tokens up to `dropout`.
    """
    num, num_places = shown.shape[:2]
    shown = shown + noise * torch.rand(num, 1, 1) * rms * torch.randn(shown.shape)
    lost = torch.rand(num, num_places) < dropout * torch.rand(num, 1)
    lost[torch.arange(num), torch.randint(num_places, (num,))] = False
    return torch.where(lost[..., None], rms * torch.randn(shown.shape), shown)


def is_qk_gain(name: str) -> bool:
    """Whether a parameter is the gain of a q/k norm."""
    return name.endswith(("q_norm.weight", "k_norm.weight"))
