"""Checkpoint directories: which ones of the trainer are complete, and how one is published.

A trainer checkpoint counts only with `complete.json`, written when every file of it is on the disk. A published one is
built in a temporary directory beside it, which is then renamed.
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import fsync_directory, fsync_file, write_json_atomically
from scripts.common.input_files import read_json
from scripts.common.reading import read_object
from scripts.donors.model_files import COMPLETE_NAME, model_files
from scripts.donors.safetensors_files import INDEX_NAME, SINGLE_NAME, read_shard, weight_map_of
from scripts.train.losses import LossPoint, losses_of
from scripts.train.settings import SETTINGS_NAME, ExportedSettings


@dataclass(frozen=True)
class Complete:
    """complete.json: the size of every file of a checkpoint, by its path there."""

    files: dict[str, int]


@dataclass(frozen=True)
class TrainerState:
    """What this project reads of transformers' trainer_state.json."""

    global_step: int
    max_steps: int
    losses: list[LossPoint]


def mark_complete(checkpoint_dir: Path) -> None:
    """Syncs every file of the checkpoint to the disk, then writes complete.json."""
    sizes = {}
    for path in sorted(path for path in checkpoint_dir.rglob("*") if path.is_file()):
        if path.name == COMPLETE_NAME:
            continue
        fsync_file(path)
        sizes[str(path.relative_to(checkpoint_dir))] = path.stat().st_size
    for directory in [path for path in checkpoint_dir.rglob("*") if path.is_dir()] + [checkpoint_dir]:
        fsync_directory(directory)
    fsync_directory(checkpoint_dir.parent)
    write_json_atomically(checkpoint_dir / COMPLETE_NAME, asdict(Complete(sizes)))


def is_complete(checkpoint_dir: Path) -> bool:
    """Whether complete.json is there and every file that it names has its size."""
    try:
        complete = read_object(Complete, checkpoint_dir / COMPLETE_NAME)
        return all((checkpoint_dir / name).stat().st_size == size for name, size in complete.files.items())
    except (OSError, UserError):
        return False


def trainer_checkpoints(trainer_dir: Path) -> list[Path]:
    """The checkpoint-N directories, complete or not, in the order of N."""
    found = [path for path in trainer_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=step_of)


def step_of(checkpoint_dir: Path) -> int:
    return int(checkpoint_dir.name.removeprefix("checkpoint-"))


def check_unchanged(checkpoint_dir: Path) -> None:
    """Raises UserError where a file has another size than complete.json names, though all of them are there.

    No kill leaves that: complete.json is written when the others are on the disk, and a removal that was cut off lacks files.
    """
    try:
        complete = read_object(Complete, checkpoint_dir / COMPLETE_NAME)
        sizes = {name: (checkpoint_dir / name).stat().st_size for name in complete.files}
    except (OSError, UserError):
        return
    for name, expected in complete.files.items():
        if sizes[name] != expected:
            raise UserError(
                f"{checkpoint_dir / name}: {sizes[name]} bytes found, {expected} expected by {COMPLETE_NAME}: it was changed "
                f"after it was saved; put it back, or remove {checkpoint_dir} to go on from the checkpoint before"
            )


def remove_incomplete(trainer_dir: Path) -> list[Path]:
    """Removes checkpoints that a kill cut off, and returns them. Raises UserError for one that somebody changed."""
    removed = [path for path in trainer_checkpoints(trainer_dir) if not is_complete(path)]
    for path in removed:
        check_unchanged(path)
    for path in removed:
        shutil.rmtree(path)
    return removed


def last_complete(trainer_dir: Path) -> Path | None:
    complete = [path for path in trainer_checkpoints(trainer_dir) if is_complete(path)]
    return complete[-1] if complete else None


def read_trainer_state(checkpoint_dir: Path) -> TrainerState:
    state = read_json(checkpoint_dir / "trainer_state.json", takes_nan=True)
    return TrainerState(state["global_step"], state["max_steps"], losses_of(state["log_history"]))


def weight_files(model_dir: Path) -> list[Path]:
    """The weight files of a checkpoint, in the order of their names."""
    if os.path.lexists(model_dir / INDEX_NAME):
        return [model_dir / name for name in sorted(set(weight_map_of(model_dir / INDEX_NAME).values()))]
    return [model_dir / SINGLE_NAME]


def is_finished(checkpoint_dir: Path) -> bool:
    """Whether a checkpoint is that of the last step."""
    state = read_trainer_state(checkpoint_dir)
    return state.global_step == state.max_steps == step_of(checkpoint_dir)


def publish_checkpoint(
    trained_dir: Path, input_dir: Path, target_dir: Path, settings: ExportedSettings
) -> Sequence[Path]:
    """Makes `target_dir` of the weights of `trained_dir` and all other files of `input_dir`, whole or not at all.

    Weights are hard-linked where the file system allows (they are never written to again), else copied. What a killed
    export left beside the target is removed.
    """
    target_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (target_dir.parent / f".{target_dir.name}.{word}" for word in ("new", "old"))
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    for path in model_files(input_dir):
        if path.suffix != ".safetensors" and path.name != INDEX_NAME:
            shutil.copyfile(path, temporary / path.name)
    publish_weights(trained_dir, temporary)
    write_json_atomically(temporary / SETTINGS_NAME, asdict(settings))
    written = sorted(temporary.iterdir())
    for path in written:
        path.chmod(0o644)
        fsync_file(path)
    fsync_directory(temporary)
    if target_dir.exists():
        target_dir.rename(old)
        temporary.rename(target_dir)
        shutil.rmtree(old)
    else:
        temporary.rename(target_dir)
    fsync_directory(target_dir.parent)
    return [target_dir / path.name for path in written]


def publish_weights(trained_dir: Path, target_dir: Path) -> None:
    """Links the shards under the names that the hubs use, and writes their index, also for a single shard."""
    weight_map: dict[str, str] = {}
    total_bytes = 0
    shards = weight_files(trained_dir)
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        link_or_copy(shard, target_dir / name)
        tensors = read_shard(target_dir / name)
        weight_map |= dict.fromkeys(tensors, name)
        total_bytes += sum(tensor.num_bytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    write_json_atomically(target_dir / INDEX_NAME, index)


def link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
