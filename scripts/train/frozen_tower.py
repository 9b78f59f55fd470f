"""A frozen vision tower runs forward once, and never backward.

Gradient checkpointing makes transformers ask the embedding of every part for a gradient (5.19, modeling_utils.py:
enable_input_require_grads), also that of a frozen tower. Then all its blocks run forward a second time, and pass a gradient down
to pictures, which nobody uses. ms-swift spares a part that is frozen as a whole (model/patcher.py: patch_frozen_module), but the
aligner, which trains, is a part of the tower's module.
"""

from typing import Any

from scripts.train.tensor_changes import group_of

EMBEDDING = "visual.patch_embed"


def spare_frozen_tower(model: Any) -> bool:
    """Cuts the graph in front of the blocks where nothing of the tower trains; whether it did. The weights come out the same."""
    in_tower = [
        parameter
        for name, parameter in model.named_parameters()
        if group_of(name.removeprefix("module.")) == "vision_tower"
    ]
    if any(parameter.requires_grad for parameter in in_tower):
        return False
    embeddings = [module for name, module in model.named_modules() if name.endswith(EMBEDDING)]
    for embedding in embeddings:
        # After the hook that asks for the gradient, since hooks run in the order in which they came.
        embedding.register_forward_hook(lambda _module, _inputs, patches: patches.detach())
    return bool(embeddings)
