"""Floating point operations of a training, part by part.

A forward pass counts once. A backward pass counts once for the gradient of a part's input and once more for that of its own
values: a frozen part that gradients must cross costs half of one, and a part that none must cross costs none. With gradient
checkpointing blocks are computed once more where a backward pass goes through them.

Model FLOP are what the mathematics needs; MFU is reckoned from them (Chowdhery et al., PaLM, appendix B). Hardware FLOP have what
is computed again on top.
"""

from dataclasses import dataclass

from scripts.plan.stacks import Model


@dataclass(frozen=True)
class Row:
    """The tokens of one row, and the patches of its pictures; both may be means."""

    num_tokens: float
    num_patches: float = 0.0


@dataclass(frozen=True)
class Trained:
    """Which parts a training changes, and where it computes blocks again to save memory."""

    tower: bool
    aligner: bool
    language: bool
    is_checkpointed: bool = True  # the language model's blocks
    is_tower_checkpointed: bool = True


@dataclass(frozen=True)
class Flop:
    """Of one row."""

    model: float
    hardware: float

    def times(self, number: float) -> "Flop":
        return Flop(self.model * number, self.hardware * number)


def _passes(*, is_trained: bool, is_crossed: bool) -> int:
    """How often a part's forward is paid: 1 forward, 2 with the gradient of its input, 3 with that of its values."""
    if is_trained:
        return 3
    return 2 if is_crossed else 1


def row_flop(model: Model, row: Row, trained: Trained) -> Flop:
    """What one row costs. Gradients cross the language model wherever the tower, the aligner or itself trains."""
    language = model.language
    blocks, head = language.forward_flop(row.num_tokens), language.head_flop(row.num_tokens)
    passes = _passes(is_trained=trained.language, is_crossed=trained.tower or trained.aligner)
    needed = passes * (blocks + head)
    computed = needed + (blocks if trained.is_checkpointed and passes > 1 else 0.0)
    if model.tower and model.aligner and row.num_patches:
        tower = model.tower.forward_flop(row.num_patches)
        aligner = model.aligner.forward_flop(row.num_patches / model.aligner.num_merged)
        tower_passes = _passes(is_trained=trained.tower, is_crossed=False)
        needed_of_pictures = (
            tower_passes * tower + _passes(is_trained=trained.aligner, is_crossed=trained.tower) * aligner
        )
        needed += needed_of_pictures
        computed += needed_of_pictures
        if trained.tower and trained.is_tower_checkpointed:
            computed += tower
    return Flop(needed, computed)
