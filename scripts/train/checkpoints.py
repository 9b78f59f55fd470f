"""What is read of the trainer's checkpoints, and how one is published: built in a directory beside, which is then renamed."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.files import fsync_directory, fsync_file, write_json_atomically
from scripts.common.input_files import read_json
from scripts.donors.model_files import model_files
from scripts.donors.safetensors_files import INDEX_NAME, SINGLE_NAME, read_shard, weight_map_of
from scripts.train.complete_checkpoints import step_of
from scripts.train.losses import LossPoint, losses_of
from scripts.train.settings import SETTINGS_NAME, ExportedSettings


@dataclass(frozen=True)
class TrainerState:
    """What this project reads of transformers' trainer_state.json."""

    global_step: int
    max_steps: int
    losses: list[LossPoint]


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
