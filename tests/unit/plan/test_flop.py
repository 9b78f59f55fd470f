"""Which pass of which part is paid, in units of its forward pass."""

import pytest

from scripts.plan.flop import Row, Trained, row_flop
from scripts.plan.stacks import Aligner, Model, Stack

LANGUAGE = Stack(2, 8, 16, 8, 8, vocab_size=50)
TOWER = Stack(2, 8, 16, 8, 8, is_causal=False)
MODEL = Model(LANGUAGE, TOWER, Aligner(100, 4))
ROW = Row(num_tokens=30, num_patches=80)
BLOCKS, HEAD = LANGUAGE.forward_flop(30), LANGUAGE.head_flop(30)
OF_TOWER, OF_ALIGNER = TOWER.forward_flop(80), MODEL.aligner.forward_flop(20) if MODEL.aligner else 0.0


def test_where_everything_trains_each_part_is_paid_three_times_and_blocks_once_more_with_checkpointing() -> None:
    flop = row_flop(MODEL, ROW, Trained(tower=True, aligner=True, language=True))
    assert flop.model == pytest.approx(3 * (BLOCKS + HEAD + OF_TOWER + OF_ALIGNER))
    assert flop.hardware - flop.model == pytest.approx(BLOCKS + OF_TOWER)
    without = Trained(tower=True, aligner=True, language=True, is_checkpointed=False, is_tower_checkpointed=False)
    assert row_flop(MODEL, ROW, without).hardware == pytest.approx(flop.model)


def test_gradients_cross_a_frozen_language_model_to_the_aligner_and_stop_there() -> None:
    trained = Trained(tower=False, aligner=True, language=False, is_checkpointed=False, is_tower_checkpointed=False)
    flop = row_flop(MODEL, ROW, trained)
    assert flop.model == pytest.approx(2 * (BLOCKS + HEAD) + OF_TOWER + 3 * OF_ALIGNER)
    assert flop.hardware == flop.model


def test_a_row_of_text_pays_no_tower() -> None:
    trained = Trained(tower=True, aligner=True, language=True)
    assert row_flop(MODEL, Row(30), trained).model == pytest.approx(3 * (BLOCKS + HEAD))


def test_the_recipes_first_stage_is_as_reckoned_by_hand() -> None:
    """250 tokens a row, 4.8e18 FLOP; the language model's blocks once more are 1.9e18."""
    from helpers.published_pairs import CONFIGS_DIR
    from scripts.plan.models import planned_model

    dirs = {"vl": CONFIGS_DIR / "Qwen2.5-VL-7B-Instruct", "llm": CONFIGS_DIR / "Qwen3-8B"}
    model = planned_model({"vl": {}, "llm": {}}, dirs).model
    flop = row_flop(model, Row(250, 4 * 180), Trained(tower=False, aligner=True, language=False)).times(558_128)
    assert flop.model == pytest.approx(4.8e18, rel=0.02)
    assert flop.hardware - flop.model == pytest.approx(1.94e18, rel=0.02)
