"""How much disk space the checkpoints of a training take, known when it begins.

Beside the weights a checkpoint holds the optimizer's state, and DeepSpeed's own copy of the weights. With the recipe's
settings that is 16 bytes a trained parameter. One checkpoint more than are kept is on the disk at times: the oldest is
removed when the next one is complete.
"""

import math
from pathlib import Path

from scripts.common.disk_space import free_bytes
from scripts.common.units import size

# AdamW keeps two moments of each value; those of the other optimizers are not counted.
_NUM_MOMENTS = 2
_ADAMW = ("adamw_torch", "adamw_torch_fused")
_FLOAT32_BYTES = 4

# The last complete checkpoint must be kept while the next one is written.
_MIN_KEPT = 2


def checkpoint_bytes(
    num_parameters: int, num_trainable: int, value_bytes: int, deepspeed: str | None, optimizer: str
) -> int:
    """The bytes of one checkpoint's tensors; the files around them are small.

    `value_bytes` is the size of one value of the weights, `optimizer` transformers' name of the optimizer. Without DeepSpeed
    a checkpoint holds the weights, and the optimizer's state in their dtype. ZeRO (deepspeed 0.19, runtime/engine.py:
    save_checkpoint) writes the weights a second time: all of them, or the frozen ones where each rank has a part (zero3). It
    also writes a float32 copy of the trained weights and the optimizer's state in float32. zero0 writes no such copy of
    float32 weights, so it is not counted there.
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

    There is a checkpoint every `steps_between` steps and one after the last step. The newest `most_kept` stay, and one more
    while the next is written.
    """
    num_left = math.ceil(max_steps / steps_between) - step // steps_between
    most = num_on_disk + num_left if most_kept is None else min(num_on_disk + num_left, most_kept + 1)
    return max(most - num_on_disk, min(num_left, 1))


def disk_space_remedy(key: str, most_kept: int | None) -> str:
    """What makes checkpoints fit; `key` is the configuration's name of how many are kept."""
    make_room = "make room, or put the results on a larger disk"
    if most_kept == _MIN_KEPT:
        return make_room
    return f"set {key}: {_MIN_KEPT} (resuming needs no more, and the same training goes on), or {make_room}"


def disk_shortage_message(directory: Path, num_bytes: int, num_to_come: int, most_kept: int | None) -> str | None:
    """Error text if the coming checkpoints of `num_bytes` each do not fit, else None."""
    needed, free = num_bytes * num_to_come, free_bytes(directory)
    if free >= needed:
        return None
    kept = "all are kept"
    if most_kept is not None:
        kept = f"{most_kept} are kept, and the oldest is removed when the next is complete"
    return (
        f"{directory}: {size(needed)} are needed for checkpoints, {size(free)} are free there; {num_to_come} more than now "
        f"will be there at once, of at least {size(num_bytes)} each ({kept}); "
        f"{disk_space_remedy('flags.save_total_limit', most_kept)}"
    )
