"""The graft's plan: every tensor of both donors is copied or dropped, every tensor of the result has one source.

Names and shapes are those that the config.json files imply. A tensor that is not planned, one that is missing, and one
of another shape or dtype are errors that name it: nothing is skipped, guessed or left to a class's random default.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scripts.common.errors import UserError
from scripts.common.safetensors_files import DTYPE_BYTES, TensorOnDisk
from scripts.common.tensor_values import FLOAT_DTYPES
from scripts.graft.donor_configs import LanguageShape, VisionShape

Shapes = dict[str, tuple[int, ...]]
FETCH_AGAIN = "fetch this donor again, or check that its config.json belongs to these weights"


@dataclass(frozen=True)
class PlannedTensor:
    """One row of the ledger. `output_name` is empty for a dropped tensor, `source` None for an initialised one."""

    policy: Literal["copied", "dropped", "initialised", "refitted"]
    donor: Literal["vl", "llm", ""]
    name: str
    output_name: str
    dtype: str
    shape: tuple[int, ...]
    source: TensorOnDisk | None
    std: float | None
    value: float | None
    reason: str

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Donor:
    """A donor's tensors by their published (legacy) names."""

    role: Literal["vl", "llm"]
    tensors: dict[str, TensorOnDisk]
    config_path: str


def language_shapes(shape: LanguageShape, *, qk_norm: bool, qkv_bias: bool) -> Shapes:
    """Tensors of a Qwen3 (q/k norms) or Qwen2.5-VL (q/k/v biases) language model, in the order of its modules."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    q_size, kv_size = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    shapes: Shapes = {"model.embed_tokens.weight": (shape.vocab_size, hidden)}
    for layer in range(shape.num_layers):
        prefix = f"model.layers.{layer}."
        attention = prefix + "self_attn."
        shapes[attention + "q_proj.weight"] = (q_size, hidden)
        shapes[attention + "k_proj.weight"] = (kv_size, hidden)
        shapes[attention + "v_proj.weight"] = (kv_size, hidden)
        if qkv_bias:
            shapes[attention + "q_proj.bias"] = (q_size,)
            shapes[attention + "k_proj.bias"] = (kv_size,)
            shapes[attention + "v_proj.bias"] = (kv_size,)
        shapes[attention + "o_proj.weight"] = (hidden, q_size)
        if qk_norm:
            shapes[attention + "q_norm.weight"] = (shape.head_dim,)
            shapes[attention + "k_norm.weight"] = (shape.head_dim,)
        shapes[prefix + "mlp.gate_proj.weight"] = (inner, hidden)
        shapes[prefix + "mlp.up_proj.weight"] = (inner, hidden)
        shapes[prefix + "mlp.down_proj.weight"] = (hidden, inner)
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not shape.tie_word_embeddings:
        shapes["lm_head.weight"] = (shape.vocab_size, hidden)
    return shapes


def vision_shapes(shape: VisionShape) -> Shapes:
    """Tensors of Qwen2.5-VL's vision tower and merger, in the order of its modules."""
    hidden, inner, merged = shape.hidden_size, shape.intermediate_size, shape.merged_size
    patch = (hidden, shape.in_channels, shape.temporal_patch_size, shape.patch_size, shape.patch_size)
    shapes: Shapes = {"visual.patch_embed.proj.weight": patch}
    for block in range(shape.depth):
        prefix = f"visual.blocks.{block}."
        shapes[prefix + "norm1.weight"] = (hidden,)
        shapes[prefix + "norm2.weight"] = (hidden,)
        for linear, outputs, inputs in (
            ("attn.qkv", 3 * hidden, hidden),
            ("attn.proj", hidden, hidden),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            shapes[f"{prefix}{linear}.weight"] = (outputs, inputs)
            shapes[f"{prefix}{linear}.bias"] = (outputs,)
    shapes["visual.merger.ln_q.weight"] = (hidden,)
    shapes["visual.merger.mlp.0.weight"] = (merged, merged)
    shapes["visual.merger.mlp.0.bias"] = (merged,)
    shapes["visual.merger.mlp.2.weight"] = (shape.out_hidden_size, merged)
    shapes["visual.merger.mlp.2.bias"] = (shape.out_hidden_size,)
    return shapes


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


def check_tensors(donor: Donor, expected: Shapes, optional: frozenset[str] = frozenset()) -> None:
    """Raises UserError unless the donor has the expected tensors, and no others, in the expected shapes, unquantised.

    Several float dtypes in one donor are as good: Qwen2.5-VL-32B-Instruct is published as bfloat16 with a float32 vision
    tower. Each tensor keeps its own, and a loader casts it to the one of config.json.
    """
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


def copied(donor: Donor, name: str, reason: str) -> PlannedTensor:
    """A tensor that goes into the result as it is."""
    tensor = donor.tensors[name]
    return PlannedTensor(
        "copied", donor.role, tensor.name, name, tensor.dtype, tensor.shape, tensor, None, None, reason
    )


def dropped(donor: Donor, name: str, reason: str) -> PlannedTensor:
    """A donor's tensor that does not go into the result."""
    tensor = donor.tensors[name]
    return PlannedTensor("dropped", donor.role, tensor.name, "", tensor.dtype, tensor.shape, tensor, None, None, reason)


def constant(name: str, shape: tuple[int, ...], dtype: str, value: float, reason: str) -> PlannedTensor:
    """A new tensor of equal values."""
    return PlannedTensor("initialised", "", name, name, dtype, shape, None, None, value, reason)


def normal(name: str, shape: tuple[int, ...], dtype: str, std: float, reason: str) -> PlannedTensor:
    """A new tensor drawn from N(0, std^2)."""
    return PlannedTensor("initialised", "", name, name, dtype, shape, None, std, None, reason)


def refitted(tensor: TensorOnDisk) -> PlannedTensor:
    """A tensor that calibrate.py fitted to what the language donor computes."""
    reason = "calibration: affine; fitted to what the language donor's q/k norms give"
    return PlannedTensor(
        "refitted", "", tensor.name, tensor.name, tensor.dtype, tensor.shape, tensor, None, None, reason
    )


def check_refit(refit: Mapping[str, TensorOnDisk], llm: Donor, output_shapes: Shapes) -> None:
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


def plan_aligner(vl: Donor, shapes: Shapes, aligner: str, mlp_2_std: float) -> list[PlannedTensor]:
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
    vl: Donor,
    llm: Donor,
    vl_shapes: Shapes,
    llm_shapes: Shapes,
    output_shapes: Shapes,
    *,
    architecture: str,
    aligner: str,
    mlp_2_std: float,
    refit: Mapping[str, TensorOnDisk],
) -> list[PlannedTensor]:
    """The whole plan, the result's tensors in the order of its modules and the dropped ones among them.

    `refit` holds what takes the place of q and k, or nothing. `vl_shapes` and `llm_shapes` are what the donors' config.json
    imply, `output_shapes` what the derived one implies; both donors must have passed `check_tensors`.
    """
    plan: list[PlannedTensor] = []
    for name in vl_shapes:
        if name.startswith("visual.") and not name.startswith("visual.merger."):
            plan.append(copied(vl, name, "the vision donor's vision tower"))
    plan += plan_aligner(vl, output_shapes, aligner, mlp_2_std)
    for name in vl.tensors:
        if not name.startswith("visual."):
            plan.append(dropped(vl, name, "the vision donor's language model; replaced by the language donor"))
    if refit:
        check_refit(refit, llm, output_shapes)
    lost = "the refitted q and k stand for them" if refit else "their effect is lost"
    for name in llm_shapes:
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
        elif bias in output_shapes and bias not in llm_shapes:
            reason = f"architecture: {architecture} has this bias, the language donor has none; all 0"
            plan.append(constant(bias, output_shapes[bias], llm.tensors[name].dtype, 0.0, reason))
    for name in llm.tensors:
        if name not in llm_shapes:  # check_tensors let only this one through
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
