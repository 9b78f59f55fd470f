"""What the blocks of a frozen tower do in a step, by counted visits, with the same gradients to the bit."""

# ruff: noqa: E402 - the imports come after the check that there is a torch to import
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the train environment has it")

from transformers import AutoModelForImageTextToText

from helpers.tiny_graft import run_graft
from scripts.train.frozen_tower import spare_frozen_tower
from scripts.train.tensor_changes import group_of

NUM_PATCHES = 16  # of one picture, 4 tokens of the language model


@pytest.fixture(scope="module")
def graft_dir(root: Path, tiny_vl_dir: Path, tiny_llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_graft(root, (tiny_vl_dir, tiny_llm_dir), tmp_path_factory.mktemp("graft"))


def model_of(graft_dir: Path, trained: set[str]) -> Any:
    """As ms-swift has it before the first step of a stage with gradient checkpointing."""
    model = AutoModelForImageTextToText.from_pretrained(graft_dir, trust_remote_code=True, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(group_of(name) in trained)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.model.visual.enable_input_require_grads()
    return model.train()


def step(model: Any) -> tuple[Counter[str], dict[str, "torch.Tensor"]]:
    """The visits of the tower's blocks in one step, and the gradients of what trains."""
    visits: Counter[str] = Counter()
    for block in model.model.visual.blocks:
        # Not behind the block: what is computed again ends as soon as all is there that the backward pass needs.
        block.register_forward_pre_hook(lambda *_: visits.update(["forward"]))
        block.register_full_backward_hook(lambda *_: visits.update(["backward"]))
    config = model.config
    torch.manual_seed(0)
    ids = torch.tensor(
        [[5, 6, config.vision_start_token_id, *[config.image_token_id] * 4, config.vision_end_token_id, 7, 8]]
    )
    width = model.model.visual.patch_embed.proj.weight[0].numel()
    pictures = {"pixel_values": torch.randn(NUM_PATCHES, width), "image_grid_thw": torch.tensor([[1, 4, 4]])}
    types = (ids == config.image_token_id).long()
    loss = model(
        input_ids=ids, labels=ids, mm_token_type_ids=types, attention_mask=torch.ones_like(ids), **pictures
    ).loss
    loss.backward()
    return visits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_frozen_tower_is_visited_once_a_block_and_the_aligner_gets_the_same_gradients(graft_dir: Path) -> None:
    as_it_is, spared = model_of(graft_dir, {"aligner"}), model_of(graft_dir, {"aligner"})
    assert spare_frozen_tower(spared)
    visits, gradients = step(as_it_is)
    spared_visits, spared_gradients = step(spared)
    num_blocks = len(spared.model.visual.blocks)
    assert visits["forward"] == 2 * num_blocks and visits["backward"] > 0, "what it is for"
    assert spared_visits == {"forward": num_blocks}
    assert gradients.keys() == spared_gradients.keys() and len(gradients) == 5
    assert all(torch.equal(gradients[name], spared_gradients[name]) for name in gradients)


def test_a_tower_that_trains_is_left_alone(graft_dir: Path) -> None:
    model = model_of(graft_dir, {"vision_tower", "aligner", "language_model"})
    assert not spare_frozen_tower(model)
    visits, gradients = step(model)
    assert visits["backward"] > 0 and len(gradients) == len(list(model.named_parameters()))
