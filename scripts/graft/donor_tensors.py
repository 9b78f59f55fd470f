"""A donor's tensors, compared with the names and shapes that its config.json implies."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from scripts.common.errors import UserError
from scripts.donors.safetensors_files import TensorOnDisk
from scripts.donors.tensor_values import FLOAT_DTYPES
from scripts.graft.shapes import Shapes

FETCH_AGAIN = "fetch this donor again, or check that its config.json belongs to these weights"


@dataclass(frozen=True)
class DonorTensors:
    """A donor's tensors by their published (legacy) names, and the shapes that its config.json implies."""

    role: Literal["vl", "llm"]
    tensors: dict[str, TensorOnDisk]
    shapes: Shapes
    config_path: str


def published_name(name: str) -> str:
    """The legacy name of a tensor, whichever of the two layouts of Qwen2.5-VL a checkpoint was saved in."""
    if name.startswith("model.visual."):
        return name.removeprefix("model.")
    if name.startswith("model.language_model."):
        return "model." + name.removeprefix("model.language_model.")
    return name


def by_published_name(tensors: Mapping[str, TensorOnDisk]) -> dict[str, TensorOnDisk]:
    """A vision donor's tensors by their legacy names; two tensors of one legacy name are an error."""
    renamed: dict[str, TensorOnDisk] = {}
    for name, tensor in tensors.items():
        legacy = published_name(name)
        if legacy in renamed:
            raise UserError(
                f"{tensor.path}: tensor {name} found beside {renamed[legacy].name}, both being {legacy}; expected one "
                "layout of names; fetch this donor again"
            )
        renamed[legacy] = tensor
    return renamed


def check_tensors(donor: DonorTensors, optional: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> None:
    """Raises UserError unless the donor has the expected tensors, and no others, in the expected shapes, unquantised.

    `optional` are tensors that it may have beside those of its `shapes`. Several float dtypes in one donor are allowed:
    Qwen2.5-VL-32B-Instruct is published as bfloat16 with a float32 vision tower. Each tensor keeps its own dtype, and a
    loader casts it to the one of config.json.
    """
    expected = donor.shapes | dict(optional)
    for name, shape in expected.items():
        tensor = donor.tensors.get(name)
        if tensor is None:
            if name in optional:
                continue
            raise UserError(
                f"{donor.config_path}: implies tensor {name} of shape {list(shape)}, which the donor's weights do not "
                f"hold; {FETCH_AGAIN}"
            )
        if tensor.shape != shape:
            raise UserError(
                f"{tensor.path}: tensor {tensor.name} has shape {list(tensor.shape)}; {donor.config_path} implies "
                f"{list(shape)}; {FETCH_AGAIN}"
            )
        if tensor.dtype not in FLOAT_DTYPES:
            raise UserError(
                f"{tensor.path}: tensor {tensor.name} is {tensor.dtype}; expected one of {', '.join(FLOAT_DTYPES)}; take "
                "an unquantised copy of this donor"
            )
    for name, tensor in donor.tensors.items():
        if name not in expected:
            raise UserError(
                f"{tensor.path}: tensor {tensor.name} is not planned for: {donor.config_path} implies no such tensor; "
                f"{FETCH_AGAIN}"
            )
