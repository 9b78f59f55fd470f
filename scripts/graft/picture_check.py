"""Shows a graft two random pictures: does it treat them as Qwen2.5-VL does? Needs torch and transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor

from scripts.common.errors import UserError
from scripts.graft.fidelity import PictureFigures
from scripts.graft.own_code import is_trusted

PICTURE_SIZE_PX = (168, 112)  # width, height: 6 x 4 merged tokens of 28 pixels, so that all three axes differ
PICTURE_SEED = 0


def picture_inputs(processor: Any, pixels: np.ndarray) -> Any:
    """A question about a picture, as the checkpoint's own template and processor make it."""
    content = [{"type": "image"}, {"type": "text", "text": "What is in the picture?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=[text], images=[Image.fromarray(pixels)], return_tensors="pt")


def picture_problem(logits: Sequence[torch.Tensor], positions: torch.Tensor) -> str | None:
    """What is wrong with the answers to two pictures and with the positions (3 axes x tokens) of a picture's tokens."""
    if not all(values.isfinite().all() for values in logits):
        return "the logits behind a picture are not finite"
    if torch.equal(*logits):
        return "two different pictures give the same logits: the picture is not looked at"
    if any(torch.equal(positions[a], positions[b]) for a, b in ((0, 1), (0, 2), (1, 2))):
        return "the picture's tokens have the same positions on two axes: m-RoPE is not active"
    return None


def check_picture(model: Any, graft_dir: Path) -> PictureFigures:
    """Shows two random pictures to the graft; raises UserError unless it looks at them as Qwen2.5-VL does."""
    processor = AutoProcessor.from_pretrained(graft_dir, trust_remote_code=is_trusted(graft_dir))
    processor.image_processor.do_resize = False  # so that the number of tokens is the same whatever its pixel limits
    random = np.random.default_rng(PICTURE_SEED)
    width_px, height_px = PICTURE_SIZE_PX
    pictures = random.integers(0, 256, size=(2, height_px, width_px, 3), dtype=np.uint8)
    questions = [picture_inputs(processor, pixels) for pixels in pictures]
    is_picture = questions[0]["input_ids"][0] == model.config.image_token_id
    if not is_picture.any():
        raise UserError(
            f"{graft_dir}: its chat template shows no picture: no token {model.config.image_token_id} found in a question "
            "about one; expected one for each 28 x 28 pixels; make the graft again"
        )
    with torch.inference_mode():
        logits = [model(**question.to(model.dtype)).logits[0, -1].float() for question in questions]
    positions, _ = model.model.get_rope_index(
        questions[0]["input_ids"],
        questions[0]["mm_token_type_ids"],
        image_grid_thw=questions[0]["image_grid_thw"],
    )
    if problem := picture_problem(logits, positions[-3:, 0, is_picture]):
        raise UserError(f"{graft_dir}: {problem}; expected Qwen2.5-VL's treatment of pictures; make the graft again")
    return PictureFigures(
        num_tokens=int(is_picture.sum()),
        finite=True,
        max_logit_change_between_pictures=(logits[0] - logits[1]).abs().max().item(),
        mrope_axes_differ=True,
    )
