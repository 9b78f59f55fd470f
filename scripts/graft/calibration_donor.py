"""The language donor as the refit reads it: one layer at a time, checked for NaN and infinity."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from scripts.common.errors import UserError
from scripts.donors.safetensors_files import DTYPE_BYTES, TensorOnDisk, read_checkpoint
from scripts.graft.affine_refit import normalised_heads
from scripts.graft.calibration_report import PROJECTIONS
from scripts.graft.donor_configs import SAFETENSORS_DTYPES, read_language_donor

# dtype in a safetensors header -> torch's.
TORCH_DTYPES: dict[str, torch.dtype] = {header: getattr(torch, name) for name, header in SAFETENSORS_DTYPES.items()}


@dataclass(frozen=True)
class LanguageDonor:
    """The language donor on disk."""

    directory: Path
    config: Any
    tensors: Mapping[str, TensorOnDisk]

    @property
    def num_layers(self) -> int:
        return self.config.num_hidden_layers


@dataclass(frozen=True)
class Target:
    """The projections of one layer: float32 weights [size, hidden], gains [head_dim], places among the targets."""

    weights: Mapping[str, torch.Tensor]
    gains: Mapping[str, torch.Tensor]
    columns: Mapping[str, slice]
    epsilon: float

    @property
    def size(self) -> int:
        return sum(len(weight) for weight in self.weights.values())

    def of(self, inputs: torch.Tensor) -> torch.Tensor:
        """What q and k should be: [n, size] for inputs [n, hidden] in float32."""
        return torch.cat(
            [normalised_heads(inputs @ self.weights[p].T, self.gains[p], self.epsilon) for p in PROJECTIONS], dim=1
        )


def open_donor(directory: Path) -> LanguageDonor:
    """Reads the headers; raises UserError unless it is a Qwen3 without quantisation, sliding windows or biases."""
    reader = read_language_donor(directory)
    reader.integer("head_dim")
    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    if config.attention_bias or any(kind != "full_attention" for kind in config.layer_types):
        raise UserError(
            f"{reader.path}: attention_bias or sliding-window layers found; expected plain full attention, as in all "
            "published Qwen3; take another language donor"
        )
    config._attn_implementation = "sdpa"
    return LanguageDonor(directory, config, read_checkpoint(directory))


def find(donor: LanguageDonor, name: str, shape: tuple[int, ...]) -> TensorOnDisk:
    """A tensor of the donor, whose shape and dtype are checked."""
    tensor = donor.tensors.get(name)
    if tensor is None:
        raise UserError(f"{donor.directory}: tensor {name} not found; config.json implies it; fetch this donor again")
    if tensor.shape != shape or tensor.dtype not in TORCH_DTYPES:
        raise UserError(
            f"{tensor.path}: tensor {name} is {list(tensor.shape)} of {tensor.dtype}; expected {list(shape)} of one of "
            f"{', '.join(TORCH_DTYPES)}, as config.json implies; fetch this donor again"
        )
    return tensor


def check_finite(values: torch.Tensor, where: str) -> None:
    """Raises UserError, beginning with `where`, when a value is NaN or infinite."""
    if not values.isfinite().all():
        raise UserError(
            f"{where} NaN or infinity; expected finite numbers; fetch this donor again, or take another one"
        )


def read_tensor(tensor: TensorOnDisk) -> torch.Tensor:
    """A tensor's values in their own dtype."""
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset)
        data = bytearray(file.read(tensor.num_bytes))
    values = torch.frombuffer(data, dtype=TORCH_DTYPES[tensor.dtype]).view(tensor.shape)
    check_finite(values, f"{tensor.path}: tensor {tensor.name} holds")
    return values


def read_embeddings(donor: LanguageDonor, ids: torch.Tensor) -> torch.Tensor:
    """The embeddings of `ids`, each row read at its place: float32, [*ids.shape, hidden_size]."""
    hidden_size = donor.config.hidden_size
    tensor = find(donor, "model.embed_tokens.weight", (donor.config.vocab_size, hidden_size))
    if ids.max() >= donor.config.vocab_size:
        raise UserError(
            f"{donor.directory}: its tokenizer gives token {int(ids.max())}, beyond the vocabulary of "
            f"{donor.config.vocab_size}; config.json and tokenizer are not of one model; fetch this donor again"
        )
    used, places = ids.unique(return_inverse=True)
    row_bytes = hidden_size * DTYPE_BYTES[tensor.dtype]
    data = bytearray()
    with open(tensor.path, "rb") as file:
        for token in used.tolist():
            file.seek(tensor.offset + token * row_bytes)
            data += file.read(row_bytes)
    rows = torch.frombuffer(data, dtype=TORCH_DTYPES[tensor.dtype]).view(len(used), hidden_size).float()
    check_finite(rows, f"{tensor.path}: tensor {tensor.name} holds")
    return rows[places]


def load_layer(donor: LanguageDonor, number: int, dtype: torch.dtype, device: str) -> Qwen3DecoderLayer:
    """One decoder layer with the donor's weights."""
    with torch.device("meta"):
        layer = Qwen3DecoderLayer(donor.config, number)
    state = {}
    for name, parameter in layer.state_dict().items():
        tensor = find(donor, f"model.layers.{number}.{name}", tuple(parameter.shape))
        state[name] = read_tensor(tensor).to(device=device, dtype=dtype)
    layer.load_state_dict(state, assign=True)
    return layer.eval().requires_grad_(False)


def layer_shapes(donor: LanguageDonor) -> dict[str, tuple[int, ...]]:
    """Shapes of what one layer gives, in the order of its file."""
    config = donor.config
    shapes: dict[str, tuple[int, ...]] = {}
    for projection, size in projection_sizes(donor).items():
        shapes[f"{projection}_proj.weight"] = (size, config.hidden_size)
        shapes[f"{projection}_proj.bias"] = (size,)
    return shapes


def projection_sizes(donor: LanguageDonor) -> dict[str, int]:
    """The number of outputs of q and of k."""
    config = donor.config
    return {"q": config.num_attention_heads * config.head_dim, "k": config.num_key_value_heads * config.head_dim}


def q_k_dtype(donor: LanguageDonor) -> str:
    """The dtype of q and k, by its name in safetensors: the refit has the same."""
    return find(donor, "model.layers.0.self_attn.q_proj.weight", layer_shapes(donor)["q_proj.weight"]).dtype


def target_of(donor: LanguageDonor, number: int, device: str) -> Target:
    """What the refit of a layer aims at, in float32 whatever the layer computes in."""
    config = donor.config
    prefix = f"model.layers.{number}.self_attn"
    weights, gains, columns, begin = {}, {}, {}, 0
    for projection, size in projection_sizes(donor).items():
        weight = find(donor, f"{prefix}.{projection}_proj.weight", (size, config.hidden_size))
        gain = find(donor, f"{prefix}.{projection}_norm.weight", (config.head_dim,))
        weights[projection] = read_tensor(weight).to(device=device, dtype=torch.float32)
        gains[projection] = read_tensor(gain).to(device=device, dtype=torch.float32)
        columns[projection] = slice(begin, begin + size)
        begin += size
    return Target(weights, gains, columns, config.rms_norm_eps)
