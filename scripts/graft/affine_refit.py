"""The best affine approximation of a normalised projection: W' x + b' ≈ RMSNorm(W x) · γ, by least squares. Needs torch.

Qwen3 normalises each head of q and k; Qwen2.5-VL's attention cannot, but has biases. Over many tokens the norm is well
approached by an affine map, since a head's rms varies little and what it varies with is mostly linear in x. Two fits are
stacked, in float64:

  1. a head alone: t ≈ A y + c with y the head before its norm, head_dim x head_dim unknowns, so few tokens suffice;
  2. what that leaves, from all of x, with a ridge that draws the correction towards zero where the text determines little.

Everything is centred first, so that the bias is exact: b' = mean(t) - W' mean(x), with W' as it will be stored.
"""

from dataclasses import dataclass

import torch

# Relative to the mean diagonal of a head's second moments: only so that a constant direction can be solved for.
HEAD_RIDGE = 1e-9


def normalised_heads(projected: torch.Tensor, gain: torch.Tensor, epsilon: float) -> torch.Tensor:
    """RMSNorm over each head, times the gain: Qwen3's q_norm and k_norm. [n, num_heads * head_dim] in and out."""
    heads = projected.unflatten(-1, (-1, len(gain)))
    return (heads * torch.rsqrt(heads.square().mean(-1, keepdim=True) + epsilon) * gain).flatten(-2)


class Moments:
    """Second moments of inputs x and targets t, both centred, summed in float64.

    x has `input_size` components and mean `input_mean`, which is known before the first `add`; t has `target_size`.
    """

    def __init__(self, input_mean: torch.Tensor, target_size: int) -> None:
        size, like = len(input_mean), {"dtype": torch.float64, "device": input_mean.device}
        self.input_mean = input_mean.double()
        self.num_tokens = 0
        self.inputs = torch.zeros(size, size, **like)
        self.cross = torch.zeros(size, target_size, **like)
        self.target_sum = torch.zeros(target_size, **like)
        self.target_squares = torch.zeros(target_size, **like)

    def add(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Adds tokens: inputs [n, input_size], targets [n, target_size]."""
        centred, targets = inputs.double() - self.input_mean, targets.double()
        self.num_tokens += len(inputs)
        self.inputs.addmm_(centred.T, centred)
        self.cross.addmm_(centred.T, targets)
        self.target_sum += targets.sum(0)
        self.target_squares += targets.square().sum(0)

    @property
    def target_mean(self) -> torch.Tensor:
        """[target_size]"""
        return self.target_sum / self.num_tokens


@dataclass(frozen=True)
class Refit:
    """W' [target_size, input_size] and b' [target_size] in the dtype in which they are stored."""

    weight: torch.Tensor
    bias: torch.Tensor


def factor(moments: Moments, ridge: float) -> torch.Tensor:
    """Cholesky factor of the inputs' moments + ridge x mean diagonal. Raises ValueError where they are not finite."""
    matrix = moments.inputs.clone()
    matrix.diagonal().add_(ridge * matrix.diagonal().mean())
    lower, failed = torch.linalg.cholesky_ex(matrix)
    if failed or not lower.isfinite().all():
        raise ValueError("the second moments of the inputs are not positive definite")
    return lower


def fit_heads(moments: Moments, columns: slice, weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """The first fit: the donor's weight [target_size, input_size], float64, each head multiplied by its own matrix."""
    cross = moments.cross[:, columns].unflatten(1, (-1, head_dim))
    heads = []
    for number, head in enumerate(weight.split(head_dim)):
        squares = head @ moments.inputs @ head.T
        squares.diagonal().add_(HEAD_RIDGE * squares.diagonal().mean() + torch.finfo(squares.dtype).tiny)
        heads.append(torch.linalg.solve(squares, head @ cross[:, number]).T @ head)
    return torch.cat(heads)


def refit(
    moments: Moments, lower: torch.Tensor, columns: slice, weight: torch.Tensor, head_dim: int, dtype: torch.dtype
) -> Refit:
    """Both fits for the targets in `columns`; `lower` is the factor of `moments`, `weight` the donor's projection."""
    by_head = fit_heads(moments, columns, weight.double(), head_dim)
    left = moments.cross[:, columns] - moments.inputs @ by_head.T
    stored = (by_head + torch.cholesky_solve(left, lower).T).to(dtype)
    bias = moments.target_mean[columns] - stored.double() @ moments.input_mean
    return Refit(stored.contiguous(), bias.to(dtype))


def condition_bound(lower: torch.Tensor) -> float:
    """A lower bound of the condition number of the matrix that `lower` is a factor of, from its diagonal alone."""
    diagonal = lower.diagonal()
    return ((diagonal.max() / diagonal.min()) ** 2).item()


def fitted_residual(moments: Moments, columns: slice, fit: Refit) -> float:
    """Root of the share of the targets' variance that the fit leaves, on the tokens that it was made from."""
    weight, cross = fit.weight.double(), moments.cross[:, columns]
    means = moments.target_mean[columns]
    variance = (moments.target_squares[columns] - moments.num_tokens * means.square()).sum()
    explained = 2 * (weight.T * cross).sum() - ((weight @ moments.inputs) * weight).sum()
    return max(0.0, (1 - explained / variance).item()) ** 0.5
