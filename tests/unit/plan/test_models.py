"""A donor's own config.json, or before it is there the published one of its name."""

import json
from pathlib import Path

import pytest

from helpers.published_pairs import CONFIGS_DIR
from scripts.common.errors import UserError
from scripts.plan.models import config_dir, planned_model


def test_a_donor_that_is_there_is_read_and_one_that_is_not_taken_as_published(tmp_path: Path) -> None:
    own = json.loads((CONFIGS_DIR / "Qwen3-8B/config.json").read_text()) | {"num_hidden_layers": 4}
    (tmp_path / "config.json").write_text(json.dumps(own))
    donors = {"vl": {"id": "Qwen/Qwen2.5-VL-7B-Instruct"}, "llm": {"id": "Qwen/Qwen3-8B"}}
    planned = planned_model(donors, {"vl": tmp_path / "none", "llm": tmp_path})
    assert planned.model.language.num_layers == 4 and planned.dtype == "bfloat16"
    assert ["as published (not fetched yet)" in origin for origin in planned.origins] == [True, False]


def test_the_aligner_ends_in_the_width_of_the_language_model_that_is_grafted(tmp_path: Path) -> None:
    donors = {"vl": {"id": "a/Qwen2.5-VL-7B-Instruct"}, "llm": {"id": "b/Qwen3-1.7B"}}
    model = planned_model(donors, {"vl": tmp_path, "llm": tmp_path}).model
    assert model.aligner and model.aligner.num_values == 5120 * (5120 + 2048)


def test_a_donor_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"donors\.llm: .*config\.json not found.*snakemake prefetch"):
        config_dir("llm", {"id": "me/mine"}, tmp_path)


def test_weights_of_a_type_that_no_graft_has_are_refused_by_name(tmp_path: Path) -> None:
    own = json.loads((CONFIGS_DIR / "Qwen3-8B/config.json").read_text()) | {"torch_dtype": "float8_e4m3fn"}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(UserError, match=r"config\.json: dtype is 'float8_e4m3fn'; expected one of float32, bfloat16"):
        planned_model({"vl": {"id": "a/Qwen2.5-VL-7B-Instruct"}, "llm": {}}, {"vl": tmp_path / "none", "llm": tmp_path})
