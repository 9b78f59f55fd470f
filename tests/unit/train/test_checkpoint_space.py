"""How much room checkpoints take. That a real one takes so much is shown in tests/pipeline/test_training_resume.py."""

import math
from pathlib import Path

import pytest

from helpers.published_pairs import llm_shapes, vl_shapes
from scripts.train import checkpoint_space
from scripts.train.checkpoint_space import checkpoint_bytes, disk_shortage_message, num_checkpoints_to_come

ADAMW = "adamw_torch_fused"


@pytest.mark.parametrize(
    ("num_trainable", "deepspeed", "optimizer", "expected"),
    [
        (1000, "zero2", ADAMW, 16 * 1000),  # the recipe's stage 2: 2 + 2 for the weights, 3 times 4 for the rest
        (10, "zero2", ADAMW, 4 * 1000 + 12 * 10),  # its stage 1
        (1000, "zero3", ADAMW, 14 * 1000),
        (10, "zero3_offload", ADAMW, 2 * 1000 + 2 * 990 + 12 * 10),
        (1000, "zero0", ADAMW, 12 * 1000),
        (1000, None, ADAMW, 6 * 1000),
        (10, None, ADAMW, 2 * 1000 + 4 * 10),
        (1000, None, "adafactor", 2 * 1000),
        (1000, "zero2", "muon", 8 * 1000),
    ],
)
def test_a_checkpoint_holds_weights_and_state_as_deepspeed_divides_them(
    num_trainable: int, deepspeed: str | None, optimizer: str, expected: int
) -> None:
    assert checkpoint_bytes(1000, num_trainable, 2, deepspeed, optimizer) == expected


def test_the_recipes_checkpoints_take_36_gb_in_stage_1_and_142_gb_in_stage_2() -> None:
    """Qwen2.5-VL-7B's vision tower on Qwen3-8B, in bfloat16 with zero2: the figures of docs/deviations.md and docs/train.md."""
    vl, llm = vl_shapes("Qwen2.5-VL-7B-Instruct"), llm_shapes("Qwen3-8B")
    visual = {name: shape for name, shape in vl.items() if name.startswith("visual.")}
    width, merged = llm["model.embed_tokens.weight"][1], vl["visual.merger.mlp.0.weight"][0]
    visual |= {"visual.merger.mlp.2.weight": (width, merged), "visual.merger.mlp.2.bias": (width,)}
    num_aligner = sum(math.prod(shape) for name, shape in visual.items() if name.startswith("visual.merger."))
    num_all = sum(map(math.prod, [*visual.values(), *llm.values()]))
    stage1 = checkpoint_bytes(num_all, num_aligner, 2, "zero2", ADAMW)
    stage2 = checkpoint_bytes(num_all, num_all, 2, "zero2", ADAMW)
    assert (round(stage1 / 1e9), round(stage2 / 1e9)) == (36, 142)
    assert (round(3 * stage2 / 1e12, 2), round(11 * stage2 / 1e12, 2)) == (0.43, 1.56)


@pytest.mark.parametrize(
    ("step", "num_on_disk", "most_kept", "expected"),
    [
        (0, 0, None, 4),  # steps 10, 20, 30 and the last, 35
        (0, 0, 10, 4),
        (0, 0, 2, 3),
        (13, 2, None, 3),  # stopped at 10 and at 13
        (13, 2, 2, 1),
        (30, 2, 2, 1),
        (30, 5, 2, 1),  # fewer are kept than before
        (30, 5, None, 1),
    ],
)
def test_as_many_are_there_at_once_as_are_kept_and_the_one_that_is_written(
    step: int, num_on_disk: int, most_kept: int | None, expected: int
) -> None:
    assert num_checkpoints_to_come(step, 35, 10, num_on_disk, most_kept) == expected


def test_what_does_not_fit_is_an_error_with_both_sizes_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_space, "free_bytes", lambda directory: 2_000_000_000_000)
    assert disk_shortage_message(tmp_path, 100_000_000_000, 20, 19) is None
    message = disk_shortage_message(tmp_path, 142_000_000_000, 15, None)
    assert message is not None
    assert message.startswith(f"{tmp_path}: 2.13 TB are needed for checkpoints, 2.00 TB are free there; 15 more")
    assert "at least 142.00 GB each (all are kept); set flags.save_total_limit: 2 (resuming needs no more" in message
    message = disk_shortage_message(tmp_path, 142_000_000_000, 15, 2)
    assert message is not None
    assert message.endswith(
        "(2 are kept, and the oldest is removed when the next is complete); make room, or put the results on a larger disk"
    )
