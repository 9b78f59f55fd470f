"""The few numbers of a stack say as much as the names and shapes of all its tensors."""

import math

import pytest

from helpers.published_pairs import CONFIGS_DIR, LLM_NAMES, VL_NAMES, llm_shapes
from scripts.graft.donor_configs import language_shape, read_language_donor, read_vision_donor, tied, vision_shape
from scripts.graft.shapes import vision_shapes
from scripts.plan.stacks import Stack, language_stack, vision_parts


def num_values(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(map(math.prod, shapes.values()))


@pytest.mark.parametrize("name", LLM_NAMES)
def test_a_language_model_has_the_parameters_of_its_tensors(name: str) -> None:
    donor = read_language_donor(CONFIGS_DIR / name)
    found = language_stack(language_shape(donor, tied(donor))).num_parameters
    assert found == pytest.approx(num_values(llm_shapes(name)), rel=1e-3)


@pytest.mark.parametrize("name", VL_NAMES)
def test_a_tower_and_its_aligner_have_the_parameters_of_their_tensors(name: str) -> None:
    shape = vision_shape(read_vision_donor(CONFIGS_DIR / name).child("vision_config"))
    tower, aligner = vision_parts(shape, out_hidden_size=shape.out_hidden_size, num_full_layers=4, window_px=112)
    assert tower.num_parameters + aligner.num_values == pytest.approx(num_values(vision_shapes(shape)), rel=2e-3)
    assert tower.window_tokens == 64 and aligner.num_merged == 4


def test_a_token_attends_to_half_of_a_causal_sequence_and_to_a_window_but_in_full_blocks() -> None:
    causal = Stack(2, 8, 16, 8, 8)
    assert causal.attention_context(100) == 50
    windows = Stack(4, 8, 16, 8, 8, is_causal=False, window_tokens=10, num_full_layers=1)
    assert windows.attention_context(100) == pytest.approx((1 * 100 + 3 * 10) / 4)
    assert windows.attention_context(6) == 6, "no window is wider than its picture"


def test_a_forward_pass_multiplies_each_value_once_for_each_token() -> None:
    stack = Stack(3, 8, 16, 8, 4, vocab_size=100, num_other_values=5)
    values = 3 * (8 * (8 + 8 + 4 + 4) + 3 * 8 * 16) + 5
    assert stack.forward_flop(10) == 10 * (2 * values + 4 * 3 * 8 * 5)
    assert stack.head_flop(10) == 2 * 10 * 100 * 8
    assert stack.num_parameters == values + 2 * 800
