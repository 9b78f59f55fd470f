"""Makes the demo's vision donor: a small Qwen2.5-VL whose vision tower has learned to read handwritten digits.

The tower is trained on the training scans, moved and turned differently at each step, so that *each* merged token of a picture
knows the digit: the later aligner then finds it in every token. The language model in it stays random
(the graft drops it). A tower that reads too few dev pictures is refused: stage 1 could not repair it.

By hand (half a minute on one core): .venv/bin/python scripts demo.make_demo_vision_donor --config config/demo.yaml
"""

import argparse
import csv
import math
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)

from scripts.common.errors import UserError, run_program
from scripts.common.logger import log
from scripts.common.settings import json_settings
from scripts.common.units import duration
from scripts.common.whole_numbers import seed_number
from scripts.demo.donor_files import DONOR_FILE_NAMES, IMAGE_MEAN, IMAGE_STD, save_weights, start_vl_donor
from scripts.demo.donor_training import learning_rate_at
from scripts.demo.prompt_texts import DIGIT_NAMES
from scripts.demo.settings import VisionDonorSettings
from scripts.demo.whole_directory import whole_directory

PATCH_PX, MERGE, TEMPORAL = 14, 2, 2  # Qwen2.5-VL's patch, patches a merged token's side, frames a patch
NUM_STEPS_BETWEEN_LINES = 50


def read_scans(digits_dir: Path, split: str, size_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The unaugmented pictures of a split as the model sees them ([n, size, size], 0 to 255) and their digits."""
    with (digits_dir / "pictures.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] == split and row["copy"] == "0"]
    # One channel of three equal ones; resized as qwen_vl_utils does it under MAX_PIXELS.
    pictures = [Image.open(digits_dir / row["path"]).resize((size_px, size_px)).getchannel(0) for row in rows]
    grey = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float()
    return grey, torch.tensor([int(row["digit"]) for row in rows])


def moved(grey: torch.Tensor, settings: VisionDonorSettings) -> torch.Tensor:
    """Each picture turned, scaled and shifted a little, differently at each call."""
    num = len(grey)

    def uniform() -> torch.Tensor:
        return torch.rand(num) * 2 - 1

    angle = uniform() * math.radians(settings.max_rotation_degrees)
    scale = 1 + uniform() * settings.max_scale_change
    transform = torch.zeros(num, 2, 3)
    transform[:, 0, 0] = transform[:, 1, 1] = scale * angle.cos()
    transform[:, 1, 0] = scale * angle.sin()
    transform[:, 0, 1] = -transform[:, 1, 0]
    # affine_grid's coordinates run from -1 to 1: a shift of 2 is a whole picture.
    transform[:, 0, 2] = uniform() * 2 * settings.max_shift
    transform[:, 1, 2] = uniform() * 2 * settings.max_shift
    grid = functional.affine_grid(transform, [num, 1, *grey.shape[1:]], align_corners=False)
    return functional.grid_sample(grey[:, None], grid, align_corners=False)[:, 0]


def to_patches(grey: torch.Tensor) -> torch.Tensor:
    """Patches in the order and layout of Qwen2VLImageProcessor: [pictures * patches, 3 * 2 * 14 * 14]."""
    num, side = len(grey), grey.shape[-1] // (PATCH_PX * MERGE)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
    colour = (grey[:, None] / 255 - mean) / std
    cut = colour.view(num, 3, side, MERGE, PATCH_PX, side, MERGE, PATCH_PX)
    in_order = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)
    with_time = in_order[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, TEMPORAL, -1, -1)
    return with_time.reshape(-1, 3 * TEMPORAL * PATCH_PX * PATCH_PX)


def attend_in_one_call(tower: Qwen2_5_VisionTransformerPretrainedModel, num_patches: int) -> None:
    """Makes the tower attend to all pictures at once, which is right while all have `num_patches` patches.

    On a CPU transformers takes picture after picture, which costs several times as much.
    """

    def forward(
        self: Qwen2_5_VLVisionAttention,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_: Any,
    ) -> torch.Tensor:
        num = hidden_states.shape[0]
        query, key, value = self.qkv(hidden_states).reshape(num, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        by_picture = [
            t.reshape(num // num_patches, num_patches, *t.shape[1:]).transpose(1, 2) for t in (query, key, value)
        ]
        attended = functional.scaled_dot_product_attention(*by_picture, scale=self.scaling)
        return self.proj(attended.transpose(1, 2).reshape(num, -1))

    for block in tower.blocks:
        block.attn.forward = types.MethodType(forward, block.attn)


def attend_as_published(tower: Qwen2_5_VisionTransformerPretrainedModel) -> None:
    """Undoes `attend_in_one_call`."""
    for block in tower.blocks:
        del block.attn.forward


class DigitReader(nn.Module):
    """The tower with one linear read-out, shared by all merged tokens; the read-out is thrown away afterwards."""

    def __init__(self, tower: Qwen2_5_VisionTransformerPretrainedModel):
        super().__init__()
        self.tower = tower
        self.read_out = nn.Linear(tower.config.out_hidden_size, len(DIGIT_NAMES))

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        """Logits [pictures, merged tokens, digits]."""
        side = grey.shape[-1] // PATCH_PX
        grid = torch.tensor([[1, side, side]]).expand(len(grey), -1)
        tokens = self.tower(to_patches(grey), grid_thw=grid).pooler_output
        tokens = functional.layer_norm(tokens, tokens.shape[-1:])
        return self.read_out(tokens).view(len(grey), (side // MERGE) ** 2, -1)


def train(reader: DigitReader, grey: torch.Tensor, digits: torch.Tensor, settings: VisionDonorSettings) -> None:
    """Trains tower and read-out; the random state decides all draws."""
    parameters = list(reader.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    start = time.monotonic()
    for step in range(settings.num_steps):
        chosen = torch.randint(len(grey), (settings.batch_size,))
        logits = reader(moved(grey[chosen], settings))
        loss = functional.cross_entropy(logits.flatten(0, 1), digits[chosen].repeat_interleave(logits.shape[1]))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings.num_steps, settings.learning_rate)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % NUM_STEPS_BETWEEN_LINES == 0:
            elapsed = duration(time.monotonic() - start)
            log(f"vision donor: step {step + 1}/{settings.num_steps}, loss {loss.item():.3f}, {elapsed}")


@torch.no_grad()
def accuracy_of_tokens(reader: DigitReader, grey: torch.Tensor, digits: torch.Tensor) -> tuple[float, float]:
    """Share of pictures read right by all tokens together, and by the worst single token place."""
    logits = reader(grey)
    together = (logits.mean(1).argmax(-1) == digits).float().mean().item()
    single = (logits.argmax(-1) == digits[:, None]).float().mean(0).min().item()
    return together, single


def make_vision_donor(digits_dir: Path, settings: VisionDonorSettings, seed: int, directory: Path) -> None:
    """Writes the whole donor into `directory`."""
    model = start_vl_donor(directory, settings.num_base_tokens, settings.vision, settings.language, seed)
    tower = model.model.visual
    reader = DigitReader(tower)
    size_px = settings.picture_px
    attend_in_one_call(tower, (size_px // PATCH_PX) ** 2)
    train(reader, *read_scans(digits_dir, "train", size_px), settings)
    accuracy, single = accuracy_of_tokens(reader, *read_scans(digits_dir, "dev", size_px))
    log(f"vision donor: {accuracy:.3f} of the dev pictures read, {single:.3f} by one token")
    if accuracy < settings.min_dev_accuracy:
        raise UserError(
            f"demo.vision_donor: the vision tower reads {accuracy:.3f} of the dev pictures; expected at least "
            f"{settings.min_dev_accuracy} (min_dev_accuracy); raise num_steps, or try another learning_rate or seed"
        )
    attend_as_published(tower)
    save_weights(model, directory)


def main() -> None:
    """Reads the arguments and makes the donor; one thread, so that a second run gives the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--digits-dir", required=True, type=Path, help="what make_digits.py wrote")
    parser.add_argument(
        "--settings",
        required=True,
        type=json_settings(VisionDonorSettings, "demo.vision_donor"),
        help="the config's `demo.vision_donor`, as JSON",
    )
    parser.add_argument("--seed", required=True, type=seed_number)
    parser.add_argument("--output-dir", required=True, type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with whole_directory(arguments.output_dir, DONOR_FILE_NAMES) as directory:
        make_vision_donor(arguments.digits_dir, arguments.settings, arguments.seed, directory)


if __name__ == "__main__":
    run_program(main)
