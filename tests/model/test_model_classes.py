"""The grafted architecture's classes on small random models: text is the donor's bit for bit, pictures work."""

import copy
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.activations import ACT2CLS

from scripts.graft.donor_configs import ACTIVATIONS

MODEL_DIR = Path(__file__).resolve().parents[2] / "model"
sys.path.append(str(MODEL_DIR))
from qwen2_5_vl_qwen3 import (  # noqa: E402
    Qwen2_5_VLQwen3Config,
    Qwen2_5_VLQwen3ForConditionalGeneration,
)

VOCAB_SIZE, IMAGE_ID, VISION_START_ID, VISION_END_ID, VIDEO_ID = 512, 500, 501, 502, 503
NUM_TEXT_IDS = 500  # ids below are words
# The head size is not hidden_size / num_attention_heads (= 12), as in Qwen3 0.6B, 4B and 32B.
TEXT = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6, "initializer_range": 0.1,
}  # fmt: skip
VISION = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 96, "patch_size": 14,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [1],
    "tokens_per_second": 2,
}  # fmt: skip
Inputs = dict[str, torch.Tensor]
GRID = (1, 8, 12)  # patches of the test picture: frames, height, width
VIDEO_GRID = (3, 4, 8)
SECONDS_PER_FRAME = 0.5  # of the video's frames after merging two to one


@pytest.fixture(scope="module")
def donor() -> Qwen3ForCausalLM:
    """A random Qwen3 all of whose norms do something."""
    torch.manual_seed(0)
    config = Qwen3Config(**TEXT, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(torch.exp(0.7 * torch.randn_like(parameter)))
    return model


@pytest.fixture
def graft(donor: Qwen3ForCausalLM) -> Qwen2_5_VLQwen3ForConditionalGeneration:
    """A random vision tower with the donor's decoder."""
    torch.manual_seed(1)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    config = Qwen2_5_VLQwen3Config(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config=VISION,
        image_token_id=IMAGE_ID,
        video_token_id=VIDEO_ID,
        vision_start_token_id=VISION_START_ID,
        vision_end_token_id=VISION_END_ID,
    )
    model = Qwen2_5_VLQwen3ForConditionalGeneration(config).eval()
    model.model.language_model.load_state_dict(donor.model.state_dict(), strict=True)
    model.lm_head.load_state_dict(donor.lm_head.state_dict(), strict=True)
    return model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def text_ids(num_rows: int, num_tokens: int) -> torch.Tensor:
    return torch.randint(0, NUM_TEXT_IDS, (num_rows, num_tokens), generator=torch.Generator().manual_seed(2))


def with_ids(inputs: Inputs, ids: torch.Tensor) -> Inputs:
    """The same pictures and videos in other text."""
    kinds = (ids == IMAGE_ID).int() + 2 * (ids == VIDEO_ID).int()
    return inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds}


def inputs_with(placeholder_id: int, grid: tuple[int, int, int]) -> tuple[Inputs, torch.Tensor]:
    """A few words around a picture's or video's tokens, and its patches, as the processor would give them."""
    num_patches = math.prod(grid)
    ids = torch.tensor([[1, 2, VISION_START_ID, *[placeholder_id] * (num_patches // 4), VISION_END_ID, 5, 6, 7]])
    patches = torch.randn(num_patches, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(3))
    return with_ids({}, ids), patches


def picture_inputs() -> Inputs:
    inputs, patches = inputs_with(IMAGE_ID, GRID)
    return inputs | {"pixel_values": patches, "image_grid_thw": torch.tensor([GRID])}


def video_inputs() -> Inputs:
    inputs, patches = inputs_with(VIDEO_ID, VIDEO_GRID)
    return inputs | {
        "pixel_values_videos": patches,
        "video_grid_thw": torch.tensor([VIDEO_GRID]),
        "second_per_grid_ts": torch.tensor([SECONDS_PER_FRAME]),
    }


def positions_of(graft: PreTrainedModel, inputs: Inputs) -> torch.Tensor:
    """Positions on the three axes, (3, tokens), as the model's own forward computes them."""
    names = {"input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts"}
    positions, _ = graft.model.get_rope_index(**{name: inputs[name] for name in names & inputs.keys()})
    return positions[:, 0]


def logits(model: PreTrainedModel, **inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_text_logits_are_the_donors_bit_for_bit(
    donor: Qwen3ForCausalLM, graft: PreTrainedModel, attention: str, dtype: torch.dtype
) -> None:
    pair = [copy.deepcopy(model).to(dtype) for model in (donor, graft)]
    for model in pair:
        model.set_attn_implementation(attention)
    ids = text_ids(3, 70)
    expected, found = (logits(model, input_ids=ids) for model in pair)
    assert expected.std() > 0.01, "the donor says something"
    assert torch.equal(expected, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_text_logits_of_a_left_padded_batch_are_the_donors_bit_for_bit(
    donor: Qwen3ForCausalLM, graft: PreTrainedModel, attention: str, dtype: torch.dtype
) -> None:
    pair = [copy.deepcopy(model).to(dtype) for model in (donor, graft)]
    ids = text_ids(3, 70)
    mask = torch.ones_like(ids)
    mask[0, :20], mask[2, :69] = 0, 0
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    for model in pair:
        model.set_attn_implementation(attention)
    expected, found = (logits(model, **inputs)[mask.bool()] for model in pair)
    assert torch.equal(expected, found)


def test_left_padding_does_not_change_what_is_generated(graft: PreTrainedModel) -> None:
    """Beside a longer text, with a mask alone: the model makes the positions itself."""

    def generate(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return graft.generate(ids, attention_mask=mask, max_new_tokens=10, do_sample=False, pad_token_id=0)

    ids = text_ids(2, 30)
    mask = torch.ones_like(ids)
    mask[1, :10] = 0
    padded = generate(ids, mask)
    assert torch.equal(padded[0], generate(ids[:1], mask[:1])[0])
    assert torch.equal(padded[1, 10:], generate(ids[1:, 10:], mask[1:, 10:])[0])


def test_generated_text_is_the_donors(donor: Qwen3ForCausalLM, graft: PreTrainedModel) -> None:
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    ids = text_ids(1, 30)
    assert torch.equal(donor.generate(ids, **options), graft.generate(ids, **options))


def test_the_q_and_k_norms_are_in_use(donor: Qwen3ForCausalLM, graft: PreTrainedModel) -> None:
    """The comparison above would notice a lost norm: here one is lost on purpose."""
    with torch.no_grad():
        graft.model.language_model.layers[0].self_attn.q_norm.weight.fill_(1.0)
    ids = text_ids(1, 20)
    assert not torch.equal(logits(donor, input_ids=ids), logits(graft, input_ids=ids))


def test_picture_tokens_have_positions_of_their_own_on_each_axis(graft: PreTrainedModel) -> None:
    inputs = picture_inputs()
    is_picture = inputs["input_ids"][0] == IMAGE_ID
    time_axis, height_axis, width_axis = positions_of(graft, inputs)
    assert len(time_axis[is_picture].unique()) == 1
    assert len(height_axis[is_picture].unique()) == GRID[1] // 2
    assert len(width_axis[is_picture].unique()) == GRID[2] // 2
    assert torch.equal(time_axis[~is_picture], height_axis[~is_picture])
    assert torch.equal(time_axis[~is_picture], width_axis[~is_picture])


def test_a_videos_frames_lie_apart_on_the_time_axis_by_their_seconds(graft: PreTrainedModel) -> None:
    inputs = video_inputs()
    is_video = inputs["input_ids"][0] == VIDEO_ID
    time_axis, height_axis, width_axis = positions_of(graft, inputs)[:, is_video]
    step = VISION["tokens_per_second"] * SECONDS_PER_FRAME
    assert (time_axis.unique() - time_axis[0]).tolist() == [step * frame for frame in range(VIDEO_GRID[0])]
    assert len(height_axis.unique()) == VIDEO_GRID[1] // 2
    assert len(width_axis.unique()) == VIDEO_GRID[2] // 2


@pytest.mark.parametrize("make_inputs", [picture_inputs, video_inputs])
def test_those_positions_reach_the_logits(graft: PreTrainedModel, make_inputs: Callable[[], Inputs]) -> None:
    inputs = make_inputs()
    own = positions_of(graft, inputs)[:, None]
    flat = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
    found = logits(graft, **inputs)
    assert torch.equal(found, logits(graft, **inputs, position_ids=own))
    assert not torch.allclose(found, logits(graft, **inputs, position_ids=flat), atol=1e-3)


def test_the_time_between_a_videos_frames_changes_the_logits(graft: PreTrainedModel) -> None:
    inputs = video_inputs()
    slower = inputs | {"second_per_grid_ts": 2 * inputs["second_per_grid_ts"]}
    assert not torch.allclose(logits(graft, **inputs)[:, -1], logits(graft, **slower)[:, -1], atol=1e-4)


def test_another_picture_gives_other_logits(graft: PreTrainedModel) -> None:
    inputs = picture_inputs()
    first = logits(graft, **inputs)
    assert first.isfinite().all()
    assert not torch.allclose(first[:, -1], logits(graft, **inputs | {"pixel_values": -inputs["pixel_values"]})[:, -1])


@pytest.mark.parametrize("make_inputs", [picture_inputs, video_inputs])
def test_decoding_with_the_cache_gives_the_logits_of_the_full_forward(
    graft: PreTrainedModel, make_inputs: Callable[[], Inputs]
) -> None:
    """Prompt with its picture or video first, then token by token: positions must go on where the axes ended."""
    inputs = make_inputs()
    num_prompt_tokens = inputs["input_ids"].shape[1]
    decoded = graft.generate(
        **inputs, max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=None,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    ids = decoded.sequences[:, :-1]
    assert ids.shape[1] == num_prompt_tokens + 11
    full = logits(graft, **with_ids(inputs, ids))[0, num_prompt_tokens - 1 :]
    cached = torch.cat(decoded.logits)
    torch.testing.assert_close(cached, full, rtol=1e-4, atol=1e-4)
    assert torch.equal(full.argmax(-1), decoded.sequences[0, num_prompt_tokens:])


def test_gradient_checkpointing_gives_the_same_loss_and_gradients(graft: PreTrainedModel) -> None:
    inputs = picture_inputs()
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE_ID, -100)
    losses, gradients = [], []
    graft.train()
    for checkpointing in (False, True):
        if checkpointing:
            graft.gradient_checkpointing_enable()
        graft.zero_grad()
        loss = graft(**inputs, labels=labels).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: parameter.grad.clone() for name, parameter in graft.named_parameters()})
    assert torch.equal(*losses)
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    untouched = [name for name, gradient in gradients[0].items() if not gradient.abs().sum() > 0]
    assert untouched == [], "every parameter takes part, the q/k norms and the whole vision tower too"


def assert_nothing_amiss(info: dict[str, Any]) -> None:
    assert {kind: names for kind, names in info.items() if names} == {}


def test_a_saved_model_has_the_published_key_names_and_loads_with_empty_loading_info(
    donor: Qwen3ForCausalLM, graft: PreTrainedModel, tmp_path: Path
) -> None:
    graft.save_pretrained(tmp_path)
    on_disk = load_file(tmp_path / "model.safetensors").keys()
    assert donor.state_dict().keys() <= on_disk, "the language donor's own names, so that its shards can be linked"
    assert all(name.startswith("visual.") for name in on_disk - donor.state_dict().keys())

    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert_nothing_amiss(info)
    assert type(loaded) is Qwen2_5_VLQwen3ForConditionalGeneration
    inputs = picture_inputs()
    assert torch.equal(logits(loaded.eval(), **inputs), logits(graft, **inputs))


def test_key_names_of_the_memory_layout_on_disk_load_too(graft: PreTrainedModel, tmp_path: Path) -> None:
    """As written by tools that save a state dict as it is."""
    graft.save_pretrained(tmp_path)
    state = {name: tensor.clone() for name, tensor in graft.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert_nothing_amiss(info)
    ids = text_ids(1, 20)
    assert torch.equal(logits(loaded.eval(), input_ids=ids), logits(graft, input_ids=ids))


def test_a_missing_tensor_shows_in_the_loading_info(graft: PreTrainedModel, tmp_path: Path) -> None:
    """What the checks above rely on."""
    graft.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.layers.1.self_attn.k_norm.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert "k_norm" in str(info["missing_keys"])


def test_the_activations_that_a_donor_may_name_are_those_that_transformers_knows() -> None:
    assert set(ACTIVATIONS) == set(ACT2CLS)
