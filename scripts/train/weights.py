"""Compares the model's weights in memory with those on the disk, and counts which of them train."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

from scripts.common.errors import UserError
from scripts.train.checkpoints import weight_files
from scripts.train.tensor_changes import GROUPS, group_of, name_in_memory
from scripts.train.watch_files import WatchSettings


@contextmanager
def gathered(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """A parameter with all its values. ZeRO-3 keeps a part on each rank; then every rank must call this."""
    if hasattr(tensor, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            yield tensor
    else:
        yield tensor


def differing_weights(model: torch.nn.Module, checkpoint_dir: Path) -> list[str]:
    """How the weights in memory differ from the checkpoint's, one line a tensor. Reads one tensor at a time."""
    in_memory = model.state_dict(keep_vars=True)
    # Tied weights are one tensor under two names, of which the checkpoint holds one.
    names_of_tensor: dict[int, list[str]] = {}
    for name, tensor in in_memory.items():
        names_of_tensor.setdefault(id(tensor), []).append(name)
    findings = []
    seen: set[str] = set()
    for path in weight_files(checkpoint_dir):
        with safe_open(path, framework="pt") as file:
            for disk_name in file.keys():  # noqa: SIM118 - not a dict
                tensor = in_memory.get(name_in_memory(disk_name))
                if tensor is None:
                    findings.append(f"{disk_name}: in the checkpoint, not in the model")
                    continue
                seen.update(names_of_tensor[id(tensor)])
                expected = file.get_tensor(disk_name)
                with gathered(tensor) as found:
                    if expected.shape != found.shape:
                        findings.append(f"{disk_name}: {list(found.shape)} in memory, {list(expected.shape)} on disk")
                    elif not torch.equal(expected.to(device=found.device, dtype=found.dtype), found):
                        findings.append(f"{disk_name}: other values than on disk")
    findings += [f"{name}: in the model, not in the checkpoint (newly initialised)" for name in in_memory.keys() - seen]
    return findings


def tied_names(model: torch.nn.Module) -> set[str]:
    """The second names of tensors with two names, such as a head that is tied to the embedding."""
    return dict(model.named_parameters(remove_duplicate=False)).keys() - dict(model.named_parameters()).keys()


def load_weights(model: torch.nn.Module, checkpoint_dir: Path) -> None:
    """Copies a checkpoint into the model tensor by tensor, with names on disk translated into names in memory.

    What does not fit is found by `differing_weights`, which is called later.
    """
    in_memory = model.state_dict()
    for path in weight_files(checkpoint_dir):
        with safe_open(path, framework="pt") as file:
            for disk_name in file.keys():  # noqa: SIM118 - not a dict
                if (tensor := in_memory.get(name_in_memory(disk_name))) is not None:
                    tensor.copy_(file.get_tensor(disk_name))


def count_parameters(model: torch.nn.Module) -> tuple[dict[str, int], dict[str, int]]:
    """All parameters and the trainable ones, per module group."""
    all_parameters, trainable = dict.fromkeys(GROUPS, 0), dict.fromkeys(GROUPS, 0)
    for name, parameter in model.named_parameters():
        num_values = getattr(parameter, "ds_numel", parameter.numel())  # with ZeRO-3 numel() is this rank's part
        all_parameters[group_of(name)] += num_values
        trainable[group_of(name)] += num_values if parameter.requires_grad else 0
    return all_parameters, trainable


def check_groups(settings: WatchSettings, all_parameters: dict[str, int], trainable: dict[str, int]) -> None:
    """Raises UserError unless exactly the groups train, each as a whole, that the freeze flags do not freeze."""
    if settings.custom_freezing:
        return
    frozen = {
        "vision_tower": settings.freeze_vit,
        "aligner": settings.freeze_aligner,
        "language_model": settings.freeze_llm,
    }
    for group in GROUPS:
        expected = 0 if frozen[group] else all_parameters[group]
        if trainable[group] != expected:
            raise UserError(
                f"{group}: {trainable[group]} of {all_parameters[group]} parameters train; expected {expected} by the "
                "freeze flags; the model's groups are registered wrongly"
            )
