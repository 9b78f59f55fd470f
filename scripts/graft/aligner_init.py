"""Initial values of the graft's new tensors: what they are, and how they are made in slabs with bounded memory.

The aligner's output is the picture tokens that the language model sees among its text embeddings. They shall have the
text embeddings' root mean square (rms). The scheme needs no picture, only the weights; docs/graft.md derives it.

- ln_q: ones. An RMS norm, so its output has mean square 1 whatever the vision tower gives.
- mlp.0: weights N(0, 1 / inputs), zero bias: so its outputs z are N(0, 1).
- mlp.2: weights N(0, s^2), zero bias, s = rms(text embeddings) / sqrt(sum over its inputs of E[gelu(z)^2]).
"""

import hashlib
import math
import os
from collections.abc import Iterator

import numpy as np

from scripts.donors.safetensors_files import DTYPE_BYTES, TensorOnDisk
from scripts.donors.tensor_values import Float32Array, from_float32, to_float32

SLAB_BYTES = 1 << 20

# At most so much of the language donor's embeddings is read for their rms: 64 blocks, evenly spread over the vocabulary
# (whose order is that of frequency). The error of the rms over 16 million values is far below what matters here.
_NUM_EMBEDDING_BLOCKS = 64

# Nodes of the Gauss-Hermite rule: gelu's second moment is then right to six digits.
_NUM_QUADRATURE_NODES = 64


def normal_slabs(name: str, num_values: int, std: float, dtype: str, seed: int, slab_bytes: int) -> Iterator[bytes]:
    """The bytes of a tensor drawn from N(0, std^2), slab by slab.

    The stream of random numbers is the tensor's own, from `seed` and its name, so the values depend neither on the
    order of tensors nor on the size of slabs.
    """
    name_words = np.frombuffer(hashlib.sha256(name.encode()).digest(), "<u4").tolist()
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *name_words])))
    slab_values = max(1, slab_bytes // 4)
    for start in range(0, num_values, slab_values):
        values = generator.standard_normal(min(slab_values, num_values - start), dtype=np.float32)
        yield from_float32(values * np.float32(std), dtype)


def constant_slabs(num_values: int, value: float, dtype: str, slab_bytes: int) -> Iterator[bytes]:
    """The bytes of a tensor of equal values, slab by slab."""
    slab_values = max(1, slab_bytes // 4)
    for start in range(0, num_values, slab_values):
        yield from_float32(np.full(min(slab_values, num_values - start), value, np.float32), dtype)


def gelu_second_moment(mean: Float32Array, variance: Float32Array) -> np.ndarray:
    """E[gelu(z)^2] for z of N(mean, variance), elementwise; gelu is the exact one, z * Phi(z), as in the merger."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NUM_QUADRATURE_NODES)
    z = mean.astype(np.float64)[:, None] + np.sqrt(variance.astype(np.float64))[:, None] * nodes
    normal_distribution = 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(z / math.sqrt(2)))
    return ((z * normal_distribution) ** 2) @ weights / math.sqrt(2 * math.pi)


def read_values(tensor: TensorOnDisk, first: int, count: int) -> Float32Array:
    """`count` values of a tensor on disk, from index `first` on."""
    size = DTYPE_BYTES[tensor.dtype]
    descriptor = os.open(tensor.path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, count * size, tensor.offset + first * size)
    finally:
        os.close(descriptor)
    return to_float32(data, tensor.dtype)


def embedding_rms(embedding: TensorOnDisk) -> float:
    """Root mean square of the text embeddings, from evenly spread blocks of at most a slab each."""
    num_values = math.prod(embedding.shape)
    block_values = min(-(-num_values // _NUM_EMBEDDING_BLOCKS), SLAB_BYTES // 4)
    num_blocks = min(_NUM_EMBEDDING_BLOCKS, -(-num_values // block_values))
    sum_of_squares, count = 0.0, 0
    for block in range(num_blocks):
        first = block * num_values // num_blocks
        values = read_values(embedding, first, min(block_values, num_values - first)).astype(np.float64)
        sum_of_squares += float(values @ values)
        count += values.size
    return math.sqrt(sum_of_squares / count)


def kept_input_moment(ln_q: TensorOnDisk, weight: TensorOnDisk, bias: TensorOnDisk) -> float:
    """Sum over mlp.2's inputs of E[gelu(z)^2], for a kept ln_q and mlp.0.

    The normed input is taken as independent components of mean 0 and mean square 1, scaled by ln_q's weight.
    """
    num_outputs, num_inputs = weight.shape
    gains = read_values(ln_q, 0, ln_q.shape[0])
    squared_gains = np.tile(gains, num_inputs // gains.size) ** 2
    variances = np.empty(num_outputs, np.float32)
    rows = max(1, SLAB_BYTES // (4 * num_inputs))
    for start in range(0, num_outputs, rows):
        stop = min(start + rows, num_outputs)
        slab = read_values(weight, start * num_inputs, (stop - start) * num_inputs).reshape(-1, num_inputs)
        variances[start:stop] = (slab * slab) @ squared_gains
    return float(gelu_second_moment(read_values(bias, 0, num_outputs), variances).sum())


def fresh_input_moment(num_inputs: int) -> float:
    """Sum over mlp.2's inputs of E[gelu(z)^2] for a fresh mlp.0, whose outputs are N(0, 1)."""
    return num_inputs * float(gelu_second_moment(np.zeros(1, np.float32), np.ones(1, np.float32))[0])


def mlp_2_std(embedding: TensorOnDisk, input_moment: float) -> float:
    """Standard deviation of mlp.2's weights: picture tokens get the text embeddings' rms.

    Rounded to four digits, so that the checkpoint's bytes do not depend on the order in which a CPU sums.
    """
    return float(f"{embedding_rms(embedding) / math.sqrt(input_moment):.4g}")
