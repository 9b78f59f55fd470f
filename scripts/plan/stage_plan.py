"""The plan of one stage: steps, tokens, FLOP, memory of a GPU, checkpoints; and what would make it fit a card."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from scripts.donors.safetensors_files import DTYPE_BYTES
from scripts.plan.flop import Flop, Row, Trained, row_flop
from scripts.plan.memory import GIB, Hardware, MemoryParts, Sharding, memory_of, num_trained_values
from scripts.plan.rows import PlannedRows
from scripts.plan.stacks import Model
from scripts.train.checkpoint_space import checkpoint_bytes
from scripts.train.settings import DTYPES, StageSettings

# What of the card may be full: the plan's own error against published trainings is about a tenth (benchmarks/results/plan.md).
FULL = 0.92


class Verdict(Enum):
    FITS = "fits"
    TIGHT = "tight: the longest rows may not fit"
    NOT = "does not fit"


@dataclass(frozen=True)
class StagePlan:
    """What a stage takes. Memory is of one GPU, for a batch of middle rows and one of the longest."""

    stage: str
    rows: PlannedRows
    num_values: int
    num_trained: int
    global_batch: int
    num_steps: int
    num_epochs: float
    flop: Flop
    memory_of_median: MemoryParts
    memory_of_longest: MemoryParts
    checkpoint_bytes: int
    num_checkpoints: int
    num_kept: int

    @property
    def num_rows_seen(self) -> int:
        return self.num_steps * self.global_batch

    @property
    def num_tokens_seen(self) -> float:
        return min(self.num_rows_seen, self.rows.num_rows * max(self.num_epochs, 1)) * self.rows.mean_tokens

    @property
    def peak_disk_bytes(self) -> int:
        """One more than are kept, while the next is written."""
        return self.checkpoint_bytes * min(self.num_kept + 1, self.num_checkpoints)

    @property
    def written_bytes(self) -> int:
        return self.checkpoint_bytes * self.num_checkpoints


def bytes_of(dtype: str) -> int:
    """Of one weight of ms-swift's type."""
    return DTYPE_BYTES[DTYPES[dtype]]


def trained_parts(settings: StageSettings) -> Trained:
    flags = settings.flags
    is_checkpointed = bool(flags.get("gradient_checkpointing", True))
    of_tower = flags.get("vit_gradient_checkpointing")
    is_tower_checkpointed = is_checkpointed if of_tower is None else bool(of_tower)
    return Trained(
        tower=not settings.freezes("freeze_vit"),
        aligner=not settings.freezes("freeze_aligner"),
        language=not settings.freezes("freeze_llm"),
        is_checkpointed=is_checkpointed,
        is_tower_checkpointed=is_tower_checkpointed,
    )


def hardware_of(settings: StageSettings, dtype: str) -> Hardware:
    name = settings.deepspeed or "none"
    stage = {"zero0": "none"}.get(name.split("_")[0], name.split("_")[0])
    return Hardware(
        num_gpus=settings.num_processes,
        sharding=Sharding(stage),
        is_offloaded=name.endswith("_offload"),
        weight_bytes=bytes_of(dtype),
        has_fused_loss=bool(settings.flags.get("use_liger_kernel")),
    )


def _batch(model: Model, rows: PlannedRows, num_tokens: float, num_rows: int) -> Row:
    """Rows of one length, with the picture tokens that a row of this length has in the mean."""
    num_merged = model.aligner.num_merged if model.aligner else 1
    return Row(num_rows * num_tokens, num_rows * num_tokens * rows.picture_share * num_merged)


def plan_stage(stage: str, settings: StageSettings, model: Model, rows: PlannedRows, dtype: str) -> StagePlan:
    flags = settings.flags
    batch_size = int(flags.get("per_device_train_batch_size", 1))
    global_batch = batch_size * int(flags.get("gradient_accumulation_steps", 1)) * settings.num_processes
    steps_an_epoch = max(math.ceil(rows.num_rows / global_batch), 1)
    num_steps = (
        int(flags["max_steps"])
        if flags.get("max_steps")
        else math.ceil(steps_an_epoch * float(flags["num_train_epochs"]))
    )
    trained, hardware = trained_parts(settings), hardware_of(settings, dtype)
    row = _batch(model, rows, rows.mean_tokens, 1)
    num_values, num_trained = model.num_parameters, num_trained_values(model, trained)
    optimizer = str(flags.get("optim", "adamw_torch_fused"))
    num_checkpoints = math.ceil(num_steps / int(flags.get("save_steps", 500)))
    return StagePlan(
        stage=stage,
        rows=rows,
        num_values=num_values,
        num_trained=num_trained,
        global_batch=global_batch,
        num_steps=num_steps,
        num_epochs=num_steps / steps_an_epoch,
        flop=row_flop(model, row, trained).times(num_steps * global_batch),
        memory_of_median=memory_of(model, _batch(model, rows, rows.median_tokens, batch_size), trained, hardware),
        memory_of_longest=memory_of(model, _batch(model, rows, rows.longest_tokens, batch_size), trained, hardware),
        checkpoint_bytes=checkpoint_bytes(
            num_values, num_trained, hardware.weight_bytes, settings.deepspeed, optimizer
        ),
        num_checkpoints=num_checkpoints,
        num_kept=int(flags.get("save_total_limit") or num_checkpoints),
    )


def verdict(plan: StagePlan, memory_gib: float) -> Verdict:
    limit = memory_gib * GIB * FULL
    if plan.memory_of_longest.total <= limit:
        return Verdict.FITS
    return Verdict.TIGHT if plan.memory_of_median.total <= limit else Verdict.NOT


def _smaller(settings: StageSettings) -> Iterator[tuple[str, StageSettings]]:
    """Settings that need less memory and keep the batch, the mildest first."""
    flags: Mapping[str, Any] = settings.flags
    size, accumulation = flags.get("per_device_train_batch_size", 1), flags.get("gradient_accumulation_steps", 1)
    divided = settings
    while size > 1 and size % 2 == 0:
        size, accumulation = size // 2, accumulation * 2
        changed = {**divided.flags, "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        divided = replace(divided, flags=changed)
        yield f"per_device_train_batch_size: {size} with gradient_accumulation_steps: {accumulation}", divided
    if settings.deepspeed not in ("zero3", "zero3_offload"):
        yield "deepspeed: zero3", replace(settings, deepspeed="zero3")
        if divided is not settings:
            yield "deepspeed: zero3, and one row at a time", replace(divided, deepspeed="zero3")
    longest = flags.get("max_length")
    if isinstance(longest, int) and longest > 4096:
        yield "max_length: 4096, and one row at a time", replace(divided, flags={**divided.flags, "max_length": 4096})
    yield "deepspeed: zero3_offload, and one row at a time", replace(divided, deepspeed="zero3_offload")


def remedy(
    stage: str, settings: StageSettings, model: Model, rows: PlannedRows, dtype: str, memory_gib: float
) -> str | None:
    """The mildest change with which the longest rows fit as well; None where none of those tried does."""
    for text, changed in _smaller(settings):
        limit = changed.flags.get("max_length")
        longest = min(rows.longest_tokens, limit) if isinstance(limit, int) else rows.longest_tokens
        plan = plan_stage(stage, changed, model, replace(rows, longest_tokens=longest), dtype)
        if verdict(plan, memory_gib) is Verdict.FITS:
            return text
    return None
