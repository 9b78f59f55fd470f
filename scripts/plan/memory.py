"""Memory of one GPU in a training, as a sum of parts, in bytes.

Mixed precision as DeepSpeed does it: weights and gradients of 2 bytes a value in bfloat16, and for each trained value 12 more
in float32 (a copy and AdamW's two moments), which ZeRO divides among the GPUs (Rajbhandari et al., ZeRO, section 3). Without
DeepSpeed the moments have the weights' own type.

Activations are those that PyTorch keeps of a block of Qwen's kind for its backward pass, with an attention that keeps no matrix
of scores (sdpa's efficient kernels, FlashAttention).
"""

from dataclasses import dataclass
from enum import Enum

from scripts.plan.flop import Row, Trained
from scripts.plan.stacks import Model, Stack

GIB = 2**30
FLOAT32_BYTES = 4
# Logits in the weights' type, as float32, the gradient of both, and the float32 of the loss's softmax (transformers 5.19,
# loss/loss_utils.py: ForCausalLMLoss).
LOGIT_BYTES = 14
# What PyTorch's allocator holds for every byte that is in use: freed blocks of other sizes stay with it.
HELD_PER_USED = 1.08
# Of what CUDA, cuBLAS and NCCL take for themselves before any tensor.
CONTEXT_BYTES = int(1.5 * GIB)
# allgather_bucket_size and reduce_bucket_size of ms-swift's zero2.json, 2e8 values each.
BUCKET_VALUES = 2 * 200_000_000


class Sharding(Enum):
    """What the GPUs share: with zero1 the optimizer's state, with zero2 gradients too, with zero3 weights too."""

    NONE = "none"
    ZERO1 = "zero1"
    ZERO2 = "zero2"
    ZERO3 = "zero3"


@dataclass(frozen=True)
class MemoryParts:
    """Bytes of one GPU."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    logits: float

    @property
    def static(self) -> float:
        """What does not depend on the rows."""
        return self.weights + self.gradients + self.optimizer + self.buffers

    @property
    def total(self) -> float:
        return HELD_PER_USED * (self.static + self.activations + self.logits)


@dataclass(frozen=True)
class Hardware:
    """How the training is spread over GPUs, and the bytes of a weight."""

    num_gpus: int
    sharding: Sharding
    is_offloaded: bool = False  # the optimizer's state lies in the host's memory
    weight_bytes: int = 2
    has_fused_loss: bool = False  # the logits are never there as a whole


def num_trained_values(model: Model, trained: Trained) -> int:
    language = model.language.num_parameters if trained.language else 0
    tower = model.tower.num_parameters if model.tower and trained.tower else 0
    return language + tower + (model.aligner.num_values if model.aligner and trained.aligner else 0)


def block_bytes(stack: Stack, weight_bytes: int) -> float:
    """What one block keeps of one token: its input twice (float32 in the norms), q, k and v before and after the rotation, the
    attention's output, and the feed-forward network's inner values."""
    norms = 2 * stack.hidden_size * (weight_bytes + FLOAT32_BYTES)
    attention = (2 * (stack.q_size + stack.kv_size) + stack.kv_size + stack.q_size) * weight_bytes
    inner = (stack.num_mlp_matrices + 1) * stack.intermediate_size * weight_bytes
    return norms + attention + inner


def stack_activations(stack: Stack, num_tokens: float, weight_bytes: int, *, is_checkpointed: bool) -> float:
    """With checkpointing the input of each block, and all of one block while it is computed again."""
    block = num_tokens * block_bytes(stack, weight_bytes)
    if is_checkpointed:
        return stack.num_layers * num_tokens * stack.hidden_size * weight_bytes + block
    return stack.num_layers * block


def memory_of(model: Model, batch: Row, trained: Trained, hardware: Hardware) -> MemoryParts:
    """`batch` has the tokens and patches of all rows that one GPU computes at once."""
    num_values = model.num_parameters
    num_trained = num_trained_values(model, trained)
    sharding, num_gpus = hardware.sharding, hardware.num_gpus
    weights = num_values * hardware.weight_bytes / (num_gpus if sharding is Sharding.ZERO3 else 1)
    is_divided = sharding in (Sharding.ZERO2, Sharding.ZERO3)
    gradients = num_trained * hardware.weight_bytes / (num_gpus if is_divided else 1)
    if sharding is Sharding.NONE:
        optimizer, buffers = 2.0 * num_trained * hardware.weight_bytes, 0.0
    else:
        optimizer = 0.0 if hardware.is_offloaded else 3.0 * num_trained * FLOAT32_BYTES / num_gpus
        buffers = min(BUCKET_VALUES, num_trained) * hardware.weight_bytes
    activations = 0.0
    if trained.language or trained.aligner or trained.tower:
        activations = stack_activations(
            model.language, batch.num_tokens, hardware.weight_bytes, is_checkpointed=trained.is_checkpointed
        )
    if model.tower and trained.tower:
        activations += stack_activations(
            model.tower, batch.num_patches, hardware.weight_bytes, is_checkpointed=trained.is_tower_checkpointed
        )
    logits = 0.0 if hardware.has_fused_loss else batch.num_tokens * model.language.vocab_size * LOGIT_BYTES
    return MemoryParts(weights, gradients, optimizer, buffers + CONTEXT_BYTES, activations, logits)
