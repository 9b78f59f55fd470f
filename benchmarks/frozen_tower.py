"""What stage 1 saves by not running backward through the frozen tower: steps side by side on the CPU, with the same weights.

A model of the true width of Qwen2.5-VL-7B's tower and Qwen3-0.6B's language model, cut to a few blocks of each, random; gradient
checkpointing is on, as in the recipe. The two ways take turns, step by step.

By hand: .venvs/train/bin/python benchmarks/frozen_tower.py        # writes benchmarks/results/frozen_tower.md
"""

import argparse
import datetime
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from model.qwen2_5_vl_qwen3.configuration_qwen2_5_vl_qwen3 import Qwen2_5_VLQwen3Config  # noqa: E402
from model.qwen2_5_vl_qwen3.modeling_qwen2_5_vl_qwen3 import Qwen2_5_VLQwen3ForConditionalGeneration  # noqa: E402
from scripts.train.frozen_tower import spare_frozen_tower  # noqa: E402
from scripts.train.tensor_changes import group_of  # noqa: E402

CONFIGS_DIR = ROOT / "config/models"
NUM_BLOCKS, NUM_LAYERS = 4, 4
GRID = (1, 24, 24)  # patches of a picture of 336 x 336: 144 tokens
NUM_TEXT_TOKENS = 60


def make_model() -> Any:
    """Stage 1's: the aligner alone trains."""
    vision = json.loads((CONFIGS_DIR / "Qwen2.5-VL-7B-Instruct/config.json").read_text())["vision_config"]
    text = json.loads((CONFIGS_DIR / "Qwen3-0.6B/config.json").read_text())
    small = {"num_hidden_layers": NUM_LAYERS, "vocab_size": 4096, "bos_token_id": None, "eos_token_id": None}
    tower = {"depth": NUM_BLOCKS, "fullatt_block_indexes": [NUM_BLOCKS - 1], "out_hidden_size": text["hidden_size"]}
    rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta"), "mrope_section": [24, 20, 20]}
    config = Qwen2_5_VLQwen3Config(
        text_config={**text, **small, "rope_parameters": rope, "layer_types": None},
        vision_config={**vision, **tower},
        image_token_id=4090, video_token_id=4091, vision_start_token_id=4092, vision_end_token_id=4093,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLQwen3ForConditionalGeneration(config).float()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(group_of(name) == "aligner")
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.model.visual.enable_input_require_grads()
    return model.train()


def make_batch(model: Any) -> dict[str, torch.Tensor]:
    """One row with one picture."""
    num_pictures_tokens = GRID[1] * GRID[2] // 4
    text = torch.randint(0, 4000, (NUM_TEXT_TOKENS,)).tolist()
    ids = torch.tensor([[4092, *[4090] * num_pictures_tokens, 4093, *text]])
    width = model.model.visual.patch_embed.proj.weight[0].numel()
    return {
        "input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == 4090).long(),
        "pixel_values": torch.randn(GRID[1] * GRID[2], width), "image_grid_thw": torch.tensor([GRID]),
    }  # fmt: skip


def step_s(model: Any, batch: dict[str, torch.Tensor]) -> float:
    model.zero_grad()
    started_s = time.perf_counter()
    model(**batch).loss.backward()
    return time.perf_counter() - started_s


def visits(model: Any, batch: dict[str, torch.Tensor]) -> Counter[str]:
    """Of the tower's blocks in one step."""
    counted: Counter[str] = Counter()
    hooks = []
    for block in model.model.visual.blocks:
        hooks.append(block.register_forward_pre_hook(lambda *_: counted.update(["forward"])))
        hooks.append(block.register_full_backward_hook(lambda *_: counted.update(["backward"])))
    step_s(model, batch)
    for hook in hooks:
        hook.remove()
    return counted


def page(num_steps: int) -> Iterator[str]:
    as_it_was, spared = make_model(), make_model()
    spare_frozen_tower(spared)
    batch = make_batch(spared)
    counted = [visits(model, batch) for model in (as_it_was, spared)]
    pairs = list(zip(as_it_was.parameters(), spared.parameters(), strict=True))
    same = all(torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None)
    times: list[list[float]] = [[], []]
    for _ in range(num_steps):
        for model, taken in zip((as_it_was, spared), times, strict=True):
            taken.append(step_s(model, batch))
    medians = [statistics.median(taken) for taken in times]
    versions = ", ".join(f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    yield "# Stage 1 without a backward pass through the frozen tower"
    yield ""
    yield (
        f"{datetime.date.today()}, {torch.get_num_threads()} threads ({platform.machine()}), {versions}, float32. {NUM_BLOCKS} "
        f"blocks of Qwen2.5-VL-7B's tower, {NUM_LAYERS} layers of Qwen3-0.6B, one picture of 336 x 336 and {NUM_TEXT_TOKENS} "
        f"tokens of text a step, {num_steps} steps each, by turns. Gradients of the "
        f"aligner equal to the bit: {'yes' if same else 'NO'}."
    )
    yield ""
    yield "| | forward visits of blocks | backward | median s a step | ratio |"
    yield "|---|---|---|---|---|"
    for name, found, median in zip(("as ms-swift has it", "spared"), counted, medians, strict=True):
        yield f"| {name} | {found['forward']} | {found['backward']} | {median:.3f} | {medians[0] / median:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-steps", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/frozen_tower.md")
    arguments = parser.parse_args()
    text = "\n".join(page(arguments.num_steps)) + "\n"
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
