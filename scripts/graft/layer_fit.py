"""One layer of the language donor: q and k are fitted on most sequences and measured on the others. Needs torch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RotaryEmbedding

from scripts.graft.affine_refit import Moments, Refit, condition_bound, factor, fitted_residual, refit
from scripts.graft.calibration_donor import Target
from scripts.graft.calibration_report import PROJECTIONS, ProjectionFigures

# One sequence of so many is measured, not fitted.
HELD_OUT_EVERY = 8

# Tokens that go through a layer at once: enough for matrix products at full speed, 100 MB of an 8B's widest activation.
NUM_TOKENS_AT_A_TIME = 2048


@dataclass(frozen=True)
class LayerFit:
    """The refitted projections of one layer, and how near they come."""

    fits: dict[str, Refit]
    condition_at_least: float
    figures: dict[str, ProjectionFigures]


def is_held_out(num_sequences: int) -> torch.Tensor:
    """Which sequences are measured instead of fitted: [num_sequences], the first of every HELD_OUT_EVERY."""
    return torch.arange(num_sequences) % HELD_OUT_EVERY == 0


def batches(num_sequences: int, sequence_length: int) -> Iterator[slice]:
    """Slices of sequences with about NUM_TOKENS_AT_A_TIME tokens."""
    step = max(1, NUM_TOKENS_AT_A_TIME // sequence_length)
    for begin in range(0, num_sequences, step):
        yield slice(begin, begin + step)


def attention_inputs(layer: Qwen3DecoderLayer, hidden: torch.Tensor, device: str) -> torch.Tensor:
    """What q and k are computed from, float32: hidden states [n, length, hidden_size] after the layer's first norm."""
    return layer.input_layernorm(hidden.to(device, layer.input_layernorm.weight.dtype)).float()


def fit_layer(
    layer: Qwen3DecoderLayer, target: Target, hidden: torch.Tensor, ridge: float, dtype: torch.dtype, device: str
) -> LayerFit:
    """q and k of one layer and the figures of the fit; `hidden` is [n, length, hidden_size], float32 on the CPU."""
    held_out = is_held_out(len(hidden))
    num_fitted = int((~held_out).sum()) * hidden.shape[1]
    slices = list(batches(*hidden.shape[:2]))
    total = torch.zeros(hidden.shape[-1], dtype=torch.float64, device=device)
    for rows in slices:
        total += attention_inputs(layer, hidden[rows], device)[~held_out[rows]].double().sum((0, 1))
    moments = Moments(total / num_fitted, target.size)
    for rows in slices:
        inputs = attention_inputs(layer, hidden[rows][~held_out[rows]], device).flatten(0, 1)
        moments.add(inputs, target.of(inputs))
    lower = factor(moments, ridge)
    head_dim = len(target.gains["q"])
    fits = {p: refit(moments, lower, target.columns[p], target.weights[p], head_dim, dtype) for p in PROJECTIONS}

    left = {p: torch.zeros((), dtype=torch.float64, device=device) for p in PROJECTIONS}
    spread = {p: torch.zeros((), dtype=torch.float64, device=device) for p in PROJECTIONS}
    for rows in slices:
        inputs = attention_inputs(layer, hidden[rows][held_out[rows]], device).flatten(0, 1)
        wanted = target.of(inputs)
        for p in PROJECTIONS:
            given = inputs @ fits[p].weight.float().T + fits[p].bias.float()
            left[p] += (wanted[:, target.columns[p]] - given).double().square().sum()
            spread[p] += (wanted[:, target.columns[p]] - moments.target_mean[target.columns[p]]).double().square().sum()
    figures = {
        p: ProjectionFigures(
            relative_residual=fitted_residual(moments, target.columns[p], fits[p]),
            relative_residual_held_out=(left[p] / spread[p]).sqrt().item(),
        )
        for p in PROJECTIONS
    }
    return LayerFit(fits, condition_bound(lower), figures)


def advance(layer: Qwen3DecoderLayer, rotary: Qwen3RotaryEmbedding, hidden: torch.Tensor, device: str) -> None:
    """Replaces the hidden states, in place, by what the donor's own layer makes of them."""
    dtype = layer.input_layernorm.weight.dtype
    positions = torch.arange(hidden.shape[1], device=device)[None]
    for rows in batches(*hidden.shape[:2]):
        states = hidden[rows].to(device, dtype)
        hidden[rows] = layer(states, position_embeddings=rotary(states, positions)).float().cpu()
