"""How much room the checkpoints of a training take, known when it begins.

Beside the weights a checkpoint holds the optimizer's state, and what DeepSpeed keeps of its own. With the recipe's settings
that is 16 bytes a trained parameter, and as many checkpoints are on the disk at once as are kept, and one more: the oldest
goes when the next one is whole.
"""

import math
from pathlib import Path

from scripts.common import units
from scripts.common.disk_space import free_bytes

# AdamW keeps two moments of each value; those of the other optimizers are not counted.
_NUM_MOMENTS = 2
_ADAMW = ("adamw_torch", "adamw_torch_fused")
_FLOAT32_BYTES = 4

# While the next one is written the last whole one must be there.
_FEWEST_KEPT = 2


def checkpoint_bytes(
    num_parameters: int, num_trainable: int, value_bytes: int, deepspeed: str | None, optimizer: str
) -> int:
    """What the tensors of one checkpoint take at least; the files around them are small.

    `value_bytes` is the size of one value of the weights, `optimizer` transformers' name of it. Without DeepSpeed: the
    weights, and the optimizer's state in their dtype. ZeRO (deepspeed 0.19, runtime/engine.py: save_checkpoint) writes
    weights a second time, all of them or, where they are divided (zero3), the frozen ones, and keeps a float32 copy of what
    trains and the state in float32 (zero0 has no such copy where the weights are float32, so there it is not counted).
    """
    weights = num_parameters * value_bytes
    num_moments = _NUM_MOMENTS if optimizer in _ADAMW else 0
    if deepspeed is None:
        return weights + num_moments * num_trainable * value_bytes
    is_divided = deepspeed.startswith("zero3")
    second_copy = (num_parameters - num_trainable) * value_bytes if is_divided else weights
    num_copies = 0 if deepspeed == "zero0" else 1
    return weights + second_copy + (num_copies + num_moments) * num_trainable * _FLOAT32_BYTES


def num_checkpoints_to_come(
    step: int, max_steps: int, steps_between: int, num_on_disk: int, most_kept: int | None
) -> int:
    """How many more checkpoints than now will be on the disk at once.

    `steps_between` lie between two checkpoints, after the last step there is one, too; of all only the newest `most_kept`
    stay, each older one until the next is written.
    """
    num_left = math.ceil(max_steps / steps_between) - step // steps_between
    most = num_on_disk + num_left if most_kept is None else min(num_on_disk + num_left, most_kept + 1)
    return max(most - num_on_disk, min(num_left, 1))


def room_remedy(key: str, most_kept: int | None) -> str:
    """What makes checkpoints fit; `key` is the configuration's name of how many are kept."""
    fewer = f"set {key}: {_FEWEST_KEPT} (resuming needs no more, and the same training goes on), or "
    return f"{'' if most_kept == _FEWEST_KEPT else fewer}make room, or put the results on a larger disk"


def want_of_room(directory: Path, num_bytes: int, num_to_come: int, most_kept: int | None) -> str | None:
    """What is to be said where so many checkpoints more of so many bytes do not fit; None where they do."""
    needed, free = num_bytes * num_to_come, free_bytes(directory)
    if free >= needed:
        return None
    kept = "all are kept" if most_kept is None else f"{most_kept} are kept, and the oldest goes when the next is whole"
    return (
        f"{directory}: {units.size(needed)} are needed for checkpoints, {units.size(free)} are free there; {num_to_come} more "
        f"than now will be there at once, of at least {units.size(num_bytes)} each ({kept}); "
        f"{room_remedy('flags.save_total_limit', most_kept)}"
    )
