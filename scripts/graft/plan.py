"""The graft's plan: every tensor of both donors is copied or dropped, every tensor of the result has one source.

Names and shapes are those that the config.json files imply. A tensor that is not planned, one that is missing, and one
of another shape or dtype are errors that name it: nothing is skipped, guessed or left to a class's random default.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.common.errors import UserError
from scripts.donors.safetensors_files import DTYPE_BYTES, TensorOnDisk
from scripts.graft.donor_tensors import DonorTensors
from scripts.graft.ledger import LedgerDonor, Policy
from scripts.graft.settings import GraftSettings
from scripts.graft.shapes import Shapes


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of a donor or of the result.

    `output_name` is empty for a dropped tensor; `source` is None for an initialised one, which has either the `std` of a
    normal distribution or the `value` of all its elements.
    """

    policy: Policy
    donor: LedgerDonor
    name: str
    output_name: str
    dtype: str
    shape: tuple[int, ...]
    reason: str
    source: TensorOnDisk | None = None
    std: float | None = None
    value: float | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


def copied(donor: DonorTensors, name: str, reason: str) -> PlannedTensor:
    """A tensor that goes into the result as it is."""
    tensor = donor.tensors[name]
    return PlannedTensor("copied", donor.role, tensor.name, name, tensor.dtype, tensor.shape, reason, tensor)


def dropped(donor: DonorTensors, name: str, reason: str) -> PlannedTensor:
    """A donor's tensor that does not go into the result."""
    tensor = donor.tensors[name]
    return PlannedTensor("dropped", donor.role, tensor.name, "", tensor.dtype, tensor.shape, reason, tensor)


def constant(name: str, shape: tuple[int, ...], dtype: str, value: float, reason: str) -> PlannedTensor:
    """A new tensor of equal values."""
    return PlannedTensor("initialised", "", name, name, dtype, shape, reason, value=value)


def normal(name: str, shape: tuple[int, ...], dtype: str, std: float, reason: str) -> PlannedTensor:
    """A new tensor drawn from N(0, std^2)."""
    return PlannedTensor("initialised", "", name, name, dtype, shape, reason, std=std)


def refitted(tensor: TensorOnDisk) -> PlannedTensor:
    """A tensor that calibrate.py fitted to what the language donor computes."""
    reason = "calibration: affine; fitted to what the language donor's q/k norms give"
    return PlannedTensor("refitted", "", tensor.name, tensor.name, tensor.dtype, tensor.shape, reason, tensor)


def check_refit(refit: Mapping[str, TensorOnDisk], llm: DonorTensors, output_shapes: Shapes) -> None:
    """Raises UserError unless the refit is of weight and bias of q and k of every layer, in the donor's dtype."""
    expected = {name for name in output_shapes if re.search(r"\.self_attn\.[qk]_proj\.(weight|bias)$", name)}
    for name in sorted(expected | refit.keys()):
        tensor = refit.get(name)
        donor_tensor = llm.tensors.get(name.replace("bias", "weight"))
        if tensor is None or donor_tensor is None or name not in expected:
            found = "is not in the refit" if tensor is None else "is in the refit"
            raise UserError(
                f"tensor {name}: {found}; expected q and k, weight and bias, of each of the graft's layers and no others; "
                "make the refit again from this donor (calibrate.py)"
            )
        if (tensor.shape, tensor.dtype) != (output_shapes[name], donor_tensor.dtype):
            raise UserError(
                f"{tensor.path}: tensor {name} is {list(tensor.shape)} of {tensor.dtype}; expected "
                f"{list(output_shapes[name])} of {donor_tensor.dtype}; make the refit again from this donor (calibrate.py)"
            )


def plan_aligner(vl: DonorTensors, shapes: Shapes, aligner: str, mlp_2_std: float) -> list[PlannedTensor]:
    """The merger: all new (`fresh`), or new only where its shape depends on the language model (`keep`)."""
    plan: list[PlannedTensor] = []
    merged = shapes["visual.merger.mlp.0.weight"][0]
    fresh_rules: dict[str, tuple[float | None, float | None]] = {
        "visual.merger.ln_q.weight": (None, 1.0),
        "visual.merger.mlp.0.weight": (float(f"{1 / math.sqrt(merged):.4g}"), None),
        "visual.merger.mlp.0.bias": (None, 0.0),
        "visual.merger.mlp.2.weight": (mlp_2_std, None),
        "visual.merger.mlp.2.bias": (None, 0.0),
    }
    for name, (std, value) in fresh_rules.items():
        depends_on_width = ".mlp.2." in name
        if aligner == "keep" and not depends_on_width:
            plan.append(copied(vl, name, "aligner: keep; does not depend on the language model's width"))
            continue
        dtype = vl.tensors[name].dtype
        why = "its shape depends on the language model's width" if depends_on_width else "aligner: fresh"
        plan.append(dropped(vl, name, f"{why}; replaced by a new tensor"))
        if std is not None:
            plan.append(normal(name, shapes[name], dtype, std, f"{why}; N(0, {std}^2), seeded"))
        elif value is not None:
            plan.append(constant(name, shapes[name], dtype, value, f"{why}; all {value:g}"))
    return plan


def plan_graft(
    vl: DonorTensors,
    llm: DonorTensors,
    output_shapes: Shapes,
    settings: GraftSettings,
    mlp_2_std: float,
    refit: Mapping[str, TensorOnDisk],
) -> list[PlannedTensor]:
    """The whole plan, the result's tensors in the order of its modules and the dropped ones among them.

    `output_shapes` are those that the derived config.json implies; `refit` holds the tensors that replace q and k, or
    nothing. Both donors must have passed `check_tensors`.
    """
    architecture = settings.architecture
    plan: list[PlannedTensor] = []
    for name in vl.shapes:
        if name.startswith("visual.") and not name.startswith("visual.merger."):
            plan.append(copied(vl, name, "the vision donor's vision tower"))
    plan += plan_aligner(vl, output_shapes, settings.aligner, mlp_2_std)
    for name in vl.tensors:
        if not name.startswith("visual."):
            plan.append(dropped(vl, name, "the vision donor's language model; replaced by the language donor"))
    if refit:
        check_refit(refit, llm, output_shapes)
    lost = "the refitted q and k replace them" if refit else "their effect is lost"
    for name in llm.shapes:
        if name in refit:
            plan.append(dropped(llm, name, "calibration: affine; refitted"))
            plan.append(refitted(refit[name]))
        elif name in output_shapes:
            plan.append(copied(llm, name, "the language donor"))
        else:
            plan.append(dropped(llm, name, f"architecture: {architecture} has no q/k norms; {lost}"))
        bias = name.replace("_proj.weight", "_proj.bias")
        if bias in refit:
            plan.append(refitted(refit[bias]))
        elif bias in output_shapes and bias not in llm.shapes:
            reason = f"architecture: {architecture} has this bias, the language donor has none; all 0"
            plan.append(constant(bias, output_shapes[bias], llm.tensors[name].dtype, 0.0, reason))
    for name in llm.tensors:
        if name not in llm.shapes:  # the one tensor that `check_tensors` allows beside them
            plan.append(dropped(llm, name, "tie_word_embeddings: true; the embedding serves as the head"))
    check_plan(plan, output_shapes)
    return plan


def check_plan(plan: list[PlannedTensor], output_shapes: Shapes) -> None:
    """Raises UserError unless the planned result is exactly what the derived config.json implies."""
    planned: Shapes = {}
    for entry in plan:
        if entry.output_name in planned:
            raise UserError(
                f"tensor {entry.output_name}: planned twice; expected one source; this is a defect, report it"
            )
        if entry.output_name:
            planned[entry.output_name] = entry.shape
    for name in output_shapes.keys() | planned.keys():
        if planned.get(name) != output_shapes.get(name):
            raise UserError(
                f"tensor {name}: the derived config.json implies shape {output_shapes.get(name)}, the donors give "
                f"{planned.get(name)}; derive config.json again from these donors (delete it and rerun)"
            )
