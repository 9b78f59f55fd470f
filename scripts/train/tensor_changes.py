"""Which tensors differ between two checkpoints, bit for bit. Streams their bytes, without torch and in little memory.

This proves that a training stage changed what it was asked to train and nothing else.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.donors.safetensors_files import TensorOnDisk, read_checkpoint

GROUPS = ("vision_tower", "aligner", "language_model")
_BLOCK_BYTES = 8 << 20
_NUM_NAMES_SHOWN = 5


@dataclass(frozen=True)
class TensorChange:
    """One tensor of both checkpoints."""

    name: str
    group: str
    changed: bool
    dtype: str


def group_of(name: str) -> str:
    """The module group of a tensor, by its name on disk (`visual.…`) or in memory (`model.visual.…`)."""
    name = name.removeprefix("model.")
    if name.startswith("visual.merger."):
        return "aligner"
    return "vision_tower" if name.startswith("visual.") else "language_model"


def name_in_memory(name: str) -> str:
    """The name of a tensor in the loaded model; a name in memory stays as it is.

    On disk visual.*, model.* and lm_head.*; in memory model.visual.*, model.language_model.* and lm_head.*.
    """
    if name.startswith(("model.visual.", "model.language_model.")):
        return name
    if name.startswith("visual."):
        return "model." + name
    if name.startswith("model."):
        return "model.language_model." + name.removeprefix("model.")
    return name


def shown(names: Collection[str]) -> str:
    """`3 tensors (a, b, c)`: the first few by name."""
    first = ", ".join(sorted(names)[:_NUM_NAMES_SHOWN])
    return (
        f"{len(names)} tensor{'s' if len(names) != 1 else ''} ({first}{', …' if len(names) > _NUM_NAMES_SHOWN else ''})"
    )


def same_bytes(a: TensorOnDisk, b: TensorOnDisk) -> bool:
    """Whether the two tensors' bytes are equal; stops at the first block that differs."""
    if a.num_bytes != b.num_bytes:
        return False
    with open(a.path, "rb") as file_a, open(b.path, "rb") as file_b:
        file_a.seek(a.offset)
        file_b.seek(b.offset)
        rest = a.num_bytes
        while rest:
            size = min(_BLOCK_BYTES, rest)
            if file_a.read(size) != file_b.read(size):
                return False
            rest -= size
    return True


def check_same_layout(before_dir: Path, after_dir: Path) -> tuple[dict[str, TensorOnDisk], dict[str, TensorOnDisk]]:
    """Both checkpoints' tensors; raises UserError unless names, shapes and dtypes agree."""
    before, after = read_checkpoint(before_dir), read_checkpoint(after_dir)
    if missing := before.keys() - after.keys():
        raise UserError(f"{after_dir}: {shown(missing)} missing that {before_dir} has; the trainer lost them")
    if extra := after.keys() - before.keys():
        raise UserError(f"{after_dir}: {shown(extra)} found that {before_dir} does not have; the trainer added them")
    for name, tensor in before.items():
        found = after[name]
        if (tensor.shape, tensor.dtype) != (found.shape, found.dtype):
            raise UserError(
                f"{after_dir}: tensor {name} is {found.dtype} {list(found.shape)}; expected {tensor.dtype} "
                f"{list(tensor.shape)} as in {before_dir} (is torch_dtype the checkpoint's own?)"
            )
    return before, after


def compare_checkpoints(
    before_dir: Path, after_dir: Path, wanted: Collection[str] | None = None
) -> Iterator[TensorChange]:
    """Every tensor, or those that are wanted, changed or not. Raises UserError when the two do not hold the same tensors."""
    before, after = check_same_layout(before_dir, after_dir)
    for name in before if wanted is None else wanted:
        yield TensorChange(name, group_of(name), not same_bytes(before[name], after[name]), before[name].dtype)


def check_changes(stage: str, changes: Collection[TensorChange], trainable: Mapping[str, bool]) -> list[str]:
    """Raises UserError unless what was frozen is unchanged and what was trained has changed.

    `trainable` says for each tensor, by its name on disk, whether it was trained. Returns the trained tensors of 16 bits
    that kept their bits, which small updates allow. At 32 bits that is an error, and so is a group without any changed
    tensor.
    """
    if touched := {c.name for c in changes if c.changed and not trainable[c.name]}:
        raise UserError(f"{stage}: {shown(touched)} changed though frozen; expected bit for bit what it was")
    for group in GROUPS:
        trained = [c for c in changes if c.group == group and trainable[c.name]]
        if trained and not any(c.changed for c in trained):
            raise UserError(
                f"{stage}: none of the {len(trained)} trained tensors of the {group} changed; "
                "is learning_rate too small for the dtype, or the number of steps 0?"
            )
    unchanged = sorted(c.name for c in changes if trainable[c.name] and not c.changed)
    if stuck := {c.name for c in changes if trainable[c.name] and not c.changed and c.dtype in ("F32", "F64")}:
        raise UserError(f"{stage}: {shown(stuck)} did not change though trained in 32 bits; did a gradient reach them?")
    return unchanged
