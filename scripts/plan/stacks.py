"""The parts of a model as stacks of transformer blocks: how many values each has, and what a token costs to compute.

One description holds for a language model and for a vision tower, so that the plan can be held against published trainings of
other models, too.
"""

from dataclasses import dataclass

from scripts.graft.donor_configs import LanguageShape, VisionShape

GATED = 3  # matrices of a feed-forward network with a gate


@dataclass(frozen=True)
class Stack:
    """Equal blocks of attention and a feed-forward network. Biases and norms, under a thousandth of all values, are left out."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    q_size: int
    kv_size: int
    num_mlp_matrices: int = GATED
    vocab_size: int = 0  # of a language model
    is_tied: bool = False  # one matrix for the embedding and the head
    num_other_values: int = 0  # multiplied once for each token: the embedding of patches
    is_causal: bool = True
    window_tokens: int | None = None  # of attention within windows
    num_full_layers: int = 0  # of those, how many attend to everything all the same

    @property
    def num_layer_values(self) -> int:
        """Of one block's matrices."""
        attention = self.hidden_size * (2 * self.q_size + 2 * self.kv_size)
        return attention + self.num_mlp_matrices * self.hidden_size * self.intermediate_size

    @property
    def num_head_values(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        embeddings = self.num_head_values * (1 if self.is_tied else 2)
        return self.num_layers * self.num_layer_values + embeddings + self.num_other_values

    def attention_context(self, num_tokens: float) -> float:
        """How many tokens one token attends to, as a mean over the blocks; with causal attention half of its sequence."""
        whole = num_tokens / 2 if self.is_causal else num_tokens
        if self.window_tokens is None:
            return whole
        share = self.num_full_layers / self.num_layers
        return share * whole + (1 - share) * min(self.window_tokens, whole)

    def forward_flop(self, num_tokens: float) -> float:
        """Of one sequence, forward: two for each multiplied value and token, and attention's two products."""
        linear = self.num_layers * self.num_layer_values + self.num_other_values
        attention = 4 * self.num_layers * self.q_size * self.attention_context(num_tokens)
        return num_tokens * (2 * linear + attention)

    def head_flop(self, num_tokens: float) -> float:
        """Of the logits of every token, forward."""
        return 2.0 * num_tokens * self.num_head_values


@dataclass(frozen=True)
class Aligner:
    """Between the tower and the language model; takes `num_merged` patches as one token."""

    num_values: int
    num_merged: int

    def forward_flop(self, num_tokens: float) -> float:
        return 2.0 * num_tokens * self.num_values


@dataclass(frozen=True)
class Model:
    """What is trained. A model of text alone has no tower and no aligner."""

    language: Stack
    tower: Stack | None = None
    aligner: Aligner | None = None

    @property
    def num_parameters(self) -> int:
        tower = self.tower.num_parameters if self.tower else 0
        return self.language.num_parameters + tower + (self.aligner.num_values if self.aligner else 0)


def language_stack(shape: LanguageShape) -> Stack:
    return Stack(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        q_size=shape.num_heads * shape.head_dim,
        kv_size=shape.num_kv_heads * shape.head_dim,
        vocab_size=shape.vocab_size,
        is_tied=shape.tie_word_embeddings,
    )


def vision_parts(
    shape: VisionShape, *, out_hidden_size: int, num_full_layers: int, window_px: int
) -> tuple[Stack, Aligner]:
    """Qwen2.5-VL's tower, and a merger that ends in `out_hidden_size` values."""
    patch_values = shape.in_channels * shape.temporal_patch_size * shape.patch_size**2
    tower = Stack(
        num_layers=shape.depth,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        q_size=shape.hidden_size,
        kv_size=shape.hidden_size,
        num_other_values=patch_values * shape.hidden_size,
        is_causal=False,
        window_tokens=(window_px // shape.patch_size) ** 2,
        num_full_layers=num_full_layers,
    )
    merged = shape.merged_size
    return tower, Aligner(merged * (merged + out_hidden_size), shape.spatial_merge_size**2)
