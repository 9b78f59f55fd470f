"""What an interrupted refit has left: which layers are done, and of what donor, text and settings."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from scripts.common.errors import UserError
from scripts.common.files import (
    open_binary_atomically,
    sha256_of_file,
    write_json_atomically,
)
from scripts.common.reading import read_object
from scripts.graft.affine_refit import Refit
from scripts.graft.calibration_donor import LanguageDonor, layer_shapes, q_k_dtype
from scripts.graft.calibration_report import PROJECTIONS, LayerFigures, RefitBasis
from scripts.graft.shard_layout import OutputTensor, encode_header

COPY_BLOCK_BYTES = 1 << 24


def bytes_of(values: torch.Tensor) -> memoryview:
    """A tensor's bytes as a file holds them."""
    return memoryview(values.detach().cpu().contiguous().view(torch.uint8).numpy().reshape(-1))


class Progress:
    """What is done so far, in one directory: hidden states before layer k, and the results of earlier layers."""

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
        """The layer that comes next: the last whose hidden states are there, and all results before it.

        A run that was killed while it removed this directory has left some of these files, and so may others who tidy up a disk.
        """
        starts = sorted((int(path.stem.split("-")[1]) for path in self.directory.glob("hidden-*.f32")), reverse=True)
        return next((start for start in starts if all(map(self.is_stored, range(start)))), 0)

    def is_stored(self, number: int) -> bool:
        """Whether a layer's result is there; each of its two files is there whole or not at all."""
        return self.layer_path(number).exists() and self.figures_path(number).exists()

    def load_hidden(self, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Hidden states before a layer."""
        hidden = torch.empty(shape, dtype=torch.float32)
        with open(self.hidden_path(number), "rb") as file:
            num_read = file.readinto(bytes_of(hidden))
        if num_read != hidden.nbytes:
            raise UserError(f"{self.hidden_path(number)}: cut off; remove {self.directory} to begin again")
        return hidden

    def store(self, number: int, fits: Mapping[str, Refit], figures: LayerFigures, hidden: torch.Tensor) -> None:
        """Keeps a layer's result and the hidden states behind it."""
        with open_binary_atomically(self.layer_path(number)) as file:
            for projection in PROJECTIONS:
                file.write(bytes_of(fits[projection].weight))
                file.write(bytes_of(fits[projection].bias))
        write_json_atomically(self.figures_path(number), asdict(figures))
        with open_binary_atomically(self.hidden_path(number + 1)) as file:
            file.write(bytes_of(hidden))
        self.hidden_path(number).unlink(missing_ok=True)

    def read_figures(self, number: int) -> LayerFigures:
        """The figures of a layer that is done."""
        return read_object(LayerFigures, self.figures_path(number))


def signature_of(basis: RefitBasis) -> str:
    """Sixteen hexadecimal digits that change with anything that determines the result."""
    return hashlib.sha256(json.dumps(asdict(basis), sort_keys=True).encode()).hexdigest()[:16]


def donor_checksums(donor: LanguageDonor) -> dict[str, str]:
    """sha256 of the donor's files that matter here: weights, config, tokenizer."""
    weights = {tensor.path for tensor in donor.tensors.values()}
    others = {donor.directory / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json")}
    return {path.name: sha256_of_file(path) for path in sorted(weights | {path for path in others if path.exists()})}


def assemble(donor: LanguageDonor, progress: Progress, output_path: Path) -> None:
    """Joins the layers' files into one safetensors file."""
    dtype = q_k_dtype(donor)
    tensors = [
        OutputTensor(f"model.layers.{number}.self_attn.{name}", dtype, shape)
        for number in range(donor.num_layers)
        for name, shape in layer_shapes(donor).items()
    ]
    with open_binary_atomically(output_path) as file:
        file.write(encode_header(tensors))
        for number in range(donor.num_layers):
            with open(progress.layer_path(number), "rb") as layer_file:
                shutil.copyfileobj(layer_file, file, COPY_BLOCK_BYTES)
