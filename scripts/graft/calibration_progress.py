"""What an interrupted refit has left: which layers are done, and of what donor, text and settings."""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from scripts.common.errors import UserError
from scripts.common.files import fsync_directory, sha256_of_file, write_json_atomically
from scripts.common.safetensors_files import DTYPE_BYTES
from scripts.graft.affine_refit import Refit
from scripts.graft.calibration_donor import PROJECTIONS, Donor

COPY_BLOCK_BYTES = 1 << 24


def write_whole(path: Path, blocks: Iterator[bytes | memoryview]) -> None:
    """Writes a binary file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room there, or choose another place"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def bytes_of(values: torch.Tensor) -> memoryview:
    """A tensor's bytes as they stand in a file."""
    return memoryview(values.detach().cpu().contiguous().view(torch.uint8).numpy().reshape(-1))


def layer_shapes(donor: Donor) -> dict[str, tuple[int, ...]]:
    """Shapes of what one layer gives, in the order of its file."""
    config = donor.config
    sizes = {"q": config.num_attention_heads * config.head_dim, "k": config.num_key_value_heads * config.head_dim}
    shapes: dict[str, tuple[int, ...]] = {}
    for projection, size in sizes.items():
        shapes[f"{projection}_proj.weight"] = (size, config.hidden_size)
        shapes[f"{projection}_proj.bias"] = (size,)
    return shapes


class Progress:
    """What is done so far, in a directory of its own: hidden states before layer k, and the results of earlier layers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob(".*.tmp"):
            stale.unlink()

    def hidden_path(self, number: int) -> Path:
        return self.directory / f"hidden-{number:03d}.f32"

    def layer_path(self, number: int) -> Path:
        return self.directory / f"layer-{number:03d}.bin"

    def figures_path(self, number: int) -> Path:
        return self.directory / f"layer-{number:03d}.json"

    def next_layer(self) -> int:
        """The layer that comes next; hidden states are written last, so all before it is there."""
        return max((int(path.stem.split("-")[1]) for path in self.directory.glob("hidden-*.f32")), default=0)

    def load_hidden(self, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Hidden states before a layer."""
        hidden = torch.empty(shape, dtype=torch.float32)
        with open(self.hidden_path(number), "rb") as file:
            num_read = file.readinto(bytes_of(hidden))
        if num_read != hidden.nbytes:
            raise UserError(f"{self.hidden_path(number)}: cut off; remove {self.directory} to begin anew")
        return hidden

    def store(self, number: int, fits: Mapping[str, Refit], figures: Mapping[str, Any], hidden: torch.Tensor) -> None:
        """Keeps a layer's result and the hidden states behind it."""
        values = (v for p in PROJECTIONS for v in (fits[p].weight, fits[p].bias))
        write_whole(self.layer_path(number), map(bytes_of, values))
        write_json_atomically(self.figures_path(number), dict(figures))
        write_whole(self.hidden_path(number + 1), iter([bytes_of(hidden)]))
        self.hidden_path(number).unlink(missing_ok=True)


def signature_of(values: Mapping[str, Any]) -> str:
    """Sixteen hex digits that stand for everything that determines the result."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def donor_checksums(donor: Donor) -> dict[str, str]:
    """sha256 of the donor's files that matter here: weights, config, tokenizer."""
    weights = {tensor.path for tensor in donor.tensors.values()}
    others = {donor.directory / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json")}
    return {path.name: sha256_of_file(path) for path in sorted(weights | {path for path in others if path.exists()})}


def assemble(donor: Donor, dtype: str, progress: Progress, output_path: Path) -> None:
    """Joins the layers' files into one safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for number in range(donor.num_layers):
        for name, shape in layer_shapes(donor).items():
            end = position + DTYPE_BYTES[dtype] * int(torch.Size(shape).numel())
            header[f"model.layers.{number}.self_attn.{name}"] = {
                "dtype": dtype,
                "shape": list(shape),
                "data_offsets": [position, end],
            }
            position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def blocks() -> Iterator[bytes]:
        yield struct.pack("<Q", len(text)) + text
        for number in range(donor.num_layers):
            with open(progress.layer_path(number), "rb") as file:
                while block := file.read(COPY_BLOCK_BYTES):
                    yield block

    write_whole(output_path, blocks())
