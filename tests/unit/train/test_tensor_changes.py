"""What trained is proven tensor by tensor, and what was frozen too."""

from pathlib import Path

import pytest

from helpers.trained_checkpoint import WEIGHTS, make_model, make_trained, write_weights
from scripts.common.errors import UserError
from scripts.train.tensor_changes import TensorChange, check_changes, compare_checkpoints, group_of, name_in_memory


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return make_model(tmp_path / "graft")


def changes_of(before: Path, after: Path) -> dict[str, bool]:
    return {change.name: change.changed for change in compare_checkpoints(before, after)}


@pytest.mark.parametrize(
    ("name", "group", "in_memory"),
    [
        ("visual.blocks.0.norm1.weight", "vision_tower", "model.visual.blocks.0.norm1.weight"),
        ("visual.merger.ln_q.weight", "aligner", "model.visual.merger.ln_q.weight"),
        ("model.layers.0.self_attn.q_norm.weight", "language_model", "model.language_model.layers.0.self_attn.q_norm.weight"),
        ("lm_head.weight", "language_model", "lm_head.weight"),
    ],
)  # fmt: skip
def test_every_tensor_has_a_group_and_a_name_in_memory(name: str, group: str, in_memory: str) -> None:
    assert group_of(name) == group_of(in_memory) == group
    assert name_in_memory(name) == name_in_memory(in_memory) == in_memory


def test_changed_tensors_are_told_from_unchanged_ones(model_dir: Path, tmp_path: Path) -> None:
    trained = make_trained(tmp_path / "trained", WEIGHTS | {"visual.merger.mlp.2.weight": [3.0, 4.0000005]})
    assert changes_of(model_dir, trained) == {
        "visual.patch_embed.proj.weight": False,
        "visual.merger.mlp.2.weight": True,
        "model.embed_tokens.weight": False,
    }


def test_a_difference_in_the_last_block_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.train.tensor_changes._BLOCK_BYTES", 8)
    for name, last in (("a", 1.0), ("b", 2.0)):
        make_trained(tmp_path / name, {"lm_head.weight": [0.0] * 6 + [last]})
    assert changes_of(tmp_path / "a", tmp_path / "b") == {"lm_head.weight": True}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"visual.merger.mlp.2.weight": [3.0, 4.0]}, r"2 tensors .* missing that"),
        (WEIGHTS | {"lm_head.weight": [1.0]}, r"1 tensor \(lm_head.weight\) found that .* does not have"),
        (WEIGHTS | {"model.embed_tokens.weight": [5.0]}, r"model.embed_tokens.weight is F32 \[1\]; expected F32 \[2\]"),
    ],
)
def test_another_set_of_tensors_is_refused(
    model_dir: Path, tmp_path: Path, weights: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        changes_of(model_dir, make_trained(tmp_path / "trained", weights))


def test_another_dtype_is_refused(model_dir: Path, tmp_path: Path) -> None:
    trained = make_trained(tmp_path / "trained", WEIGHTS)
    write_weights(trained / "model.safetensors", WEIGHTS, dtype="BF16")
    with pytest.raises(UserError, match=r"is BF16 \[2\]; expected F32 \[2\]"):
        changes_of(model_dir, trained)


def change(name: str, changed: bool, dtype: str = "F32") -> TensorChange:
    return TensorChange(name, group_of(name), changed, dtype)


def test_a_frozen_tensor_that_changed_is_named() -> None:
    changes = [change("visual.merger.mlp.2.weight", True), change("model.norm.weight", True)]
    trainable = {"visual.merger.mlp.2.weight": True, "model.norm.weight": False}
    with pytest.raises(UserError, match=r"stage1: 1 tensor \(model.norm.weight\) changed though frozen"):
        check_changes("stage1", changes, trainable)


def test_a_trained_group_that_did_not_change_is_an_error() -> None:
    changes = [change("visual.merger.mlp.2.weight", False, "BF16")]
    with pytest.raises(UserError, match="none of the 1 trained tensors of the aligner changed"):
        check_changes("stage1", changes, {"visual.merger.mlp.2.weight": True})


def test_a_trained_tensor_that_kept_its_bits_is_an_error_at_32_bits_and_reported_at_16() -> None:
    names = ["visual.merger.mlp.2.weight", "visual.merger.ln_q.weight"]
    trainable = dict.fromkeys(names, True)
    with pytest.raises(UserError, match=r"1 tensor \(visual.merger.ln_q.weight\) did not change though trained"):
        check_changes("stage1", [change(names[0], True), change(names[1], False)], trainable)
    changes = [change(names[0], True, "BF16"), change(names[1], False, "BF16")]
    assert check_changes("stage1", changes, trainable) == ["visual.merger.ln_q.weight"]
