"""LoRA by peft: adapters attach to language model, aligner and vision tower, train alone, merge and load again."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, PreTrainedModel

from helpers.graft_run import make_graft

PICTURE_GRID = (1, 4, 4)
TARGETS = ["q_proj", "v_proj", "down_proj", "qkv", "mlp.0", "mlp.2"]


def load(graft_dir: Path) -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(graft_dir, trust_remote_code=True, dtype=torch.float32).eval()


def picture_inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    config, num_patches = model.config, PICTURE_GRID[1] * PICTURE_GRID[2]
    placeholders = [config.image_token_id] * (num_patches // 4)
    ids = torch.tensor([[5, config.vision_start_token_id, *placeholders, config.vision_end_token_id, 6, 7]])
    patches = torch.randn(num_patches, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0))
    kinds = (ids == config.image_token_id).int()
    return {
        "input_ids": ids,
        "pixel_values": patches,
        "image_grid_thw": torch.tensor([PICTURE_GRID]),
        "mm_token_type_ids": kinds,
    }


@pytest.fixture(scope="module")
def graft_dir(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_graft(root, tmp_path_factory.mktemp("lora"), "qwen3", "fresh", dtype="float32")[0]


@pytest.fixture(scope="module")
def trained(graft_dir: Path) -> PeftModel:
    """After two steps on one picture: the first moves only the B matrices, which begin at zero."""
    torch.manual_seed(0)
    model = get_peft_model(load(graft_dir), LoraConfig(r=2, target_modules=TARGETS))
    inputs = picture_inputs(model)
    labels = inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"].bool(), -100)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
    return model.eval()


def logits(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    with torch.no_grad():
        return model(**picture_inputs(model)).logits


def test_adapters_attach_to_all_three_groups_and_each_of_them_learns(trained: PeftModel) -> None:
    adapters = {name: parameter for name, parameter in trained.named_parameters() if ".lora_" in name}
    for part in ("visual.blocks", "visual.merger", "language_model.layers"):
        assert any(f"model.{part}." in name for name in adapters), part
    assert all(parameter.requires_grad and parameter.abs().sum() > 0 for parameter in adapters.values())
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapters.values())


def test_everything_else_stays_as_it_was(trained: PeftModel, graft_dir: Path) -> None:
    before = load(graft_dir).state_dict()
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): tensor
        for name, tensor in trained.state_dict().items()
        if ".lora_" not in name
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_saved_adapter_loads_on_the_checkpoint_directory_and_merges_into_it(
    trained: PeftModel, graft_dir: Path, tmp_path: Path
) -> None:
    expected = logits(trained)
    assert not torch.allclose(expected, logits(load(graft_dir)), atol=1e-3)
    trained.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(load(graft_dir), tmp_path / "adapter").eval()
    assert torch.equal(logits(loaded), expected)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(load(tmp_path / "merged")), logits(merged))
