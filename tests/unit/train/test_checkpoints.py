"""A cut-off checkpoint is never resumed, what trained is proven tensor by tensor, and an export is whole or absent."""

import json
import struct
from pathlib import Path

import pytest

from scripts.common.errors import UserError
from scripts.common.model_files import model_sha256
from scripts.common.safetensors_files import read_checkpoint
from scripts.data.fingerprint import dataset_sha256
from scripts.train import checkpoints as checkpoint_files
from scripts.train.checkpoints import is_complete, last_complete, mark_complete, publish_checkpoint, remove_incomplete
from scripts.train.tensor_changes import TensorChange, check_changes, compare_checkpoints, group_of, name_in_memory

WEIGHTS = {
    "visual.patch_embed.proj.weight": [1.0, 2.0],
    "visual.merger.mlp.2.weight": [3.0, 4.0],
    "model.embed_tokens.weight": [5.0, 6.0],
}


def write_weights(path: Path, weights: dict[str, list[float]], dtype: str = "F32") -> None:
    code = {"F32": "f", "BF16": "H"}[dtype]
    header, data = {}, b""
    for name, values in weights.items():
        packed = struct.pack(f"<{len(values)}{code}", *(values if code == "f" else map(int, values)))
        header[name] = {"dtype": dtype, "shape": [len(values)], "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "graft"
    directory.mkdir()
    write_weights(directory / "model.safetensors", WEIGHTS)
    (directory / "config.json").write_text("{}")
    (directory / "ledger.tsv").write_text("about the graft")
    return directory


def make_trained(directory: Path, weights: dict[str, list[float]]) -> Path:
    directory.mkdir(parents=True)
    write_weights(directory / "model.safetensors", weights)
    (directory / "optimizer.pt").write_bytes(b"state")
    (directory / "trainer_state.json").write_text('{"global_step": 4, "max_steps": 4}')
    return directory


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


def test_a_checkpoint_is_complete_only_with_every_file_at_its_size(tmp_path: Path) -> None:
    checkpoint = make_trained(tmp_path / "checkpoint-4", WEIGHTS)
    assert not is_complete(checkpoint)
    mark_complete(checkpoint)
    assert is_complete(checkpoint)
    (checkpoint / "optimizer.pt").write_bytes(b"sta")
    assert not is_complete(checkpoint)
    (checkpoint / "optimizer.pt").unlink()
    assert not is_complete(checkpoint)


def test_an_empty_or_torn_mark_is_no_mark(tmp_path: Path) -> None:
    checkpoint = make_trained(tmp_path / "checkpoint-4", WEIGHTS)
    for text in ("", '{"files": ', "[]"):
        (checkpoint / "complete.json").write_text(text)
        assert not is_complete(checkpoint)


def test_cut_off_checkpoints_are_removed_and_the_last_whole_one_is_found(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        make_trained(tmp_path / f"checkpoint-{step}", WEIGHTS)
    (tmp_path / "last-checkpoint").symlink_to("checkpoint-12")
    mark_complete(tmp_path / "checkpoint-4")
    mark_complete(tmp_path / "checkpoint-8")
    assert [path.name for path in remove_incomplete(tmp_path)] == ["checkpoint-12"]
    found = last_complete(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-8"
    assert not (tmp_path / "checkpoint-12").exists()


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (900, 1000):
        mark_complete(make_trained(tmp_path / f"checkpoint-{step}", WEIGHTS))
    found = last_complete(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-1000"


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
        (WEIGHTS | {"lm_head.weight": [1.0]}, r"1 tensor \(lm_head.weight\) found that .* has not"),
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


def test_a_trained_tensor_that_kept_its_bits_is_an_error_at_32_bits_and_told_at_16() -> None:
    names = ["visual.merger.mlp.2.weight", "visual.merger.ln_q.weight"]
    trainable = dict.fromkeys(names, True)
    with pytest.raises(UserError, match=r"1 tensor \(visual.merger.ln_q.weight\) did not change though trained"):
        check_changes("stage1", [change(names[0], True), change(names[1], False)], trainable)
    changes = [change(names[0], True, "BF16"), change(names[1], False, "BF16")]
    assert check_changes("stage1", changes, trainable) == ["visual.merger.ln_q.weight"]


def test_an_export_has_the_inputs_files_the_trained_weights_and_always_an_index(
    model_dir: Path, tmp_path: Path
) -> None:
    trained = make_trained(tmp_path / "trained", {name: [9.0, 9.0] for name in WEIGHTS})
    (model_dir / "README.md").write_text("the input's own model card")
    target = tmp_path / "out" / "checkpoint"
    publish_checkpoint(trained, model_dir, target, {"flags": {}})
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json", "settings.json",
    ]  # fmt: skip
    assert (target / "model-00001-of-00001.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert read_checkpoint(target).keys() == WEIGHTS.keys()
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 24


def test_a_killed_export_leaves_nothing_and_the_next_one_cleans_up(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = make_trained(tmp_path / "trained", WEIGHTS)
    target = tmp_path / "out" / "checkpoint"

    def power_cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "fsync_directory", power_cut)
        with pytest.raises(KeyboardInterrupt):
            publish_checkpoint(trained, model_dir, target, {})
    assert not target.exists()
    publish_checkpoint(trained, model_dir, target, {})
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


def test_an_older_export_is_replaced(model_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "checkpoint"
    publish_checkpoint(make_trained(tmp_path / "one", WEIGHTS), model_dir, target, {"run": 1})
    publish_checkpoint(make_trained(tmp_path / "two", WEIGHTS), model_dir, target, {"run": 2})
    assert json.loads((target / "settings.json").read_text()) == {"run": 2}
    assert [path.name for path in target.parent.iterdir()] == ["checkpoint"]


def test_a_models_hash_follows_its_files_but_not_what_is_said_about_it(model_dir: Path) -> None:
    before = model_sha256(model_dir)
    (model_dir / "ledger.tsv").write_text("something else")
    (model_dir / "settings.json").write_text("{}")
    (model_dir / "README.md").write_text("a model card")
    (model_dir / "LICENSE.vl").write_text("a donor's license")
    assert model_sha256(model_dir) == before
    (model_dir / "config.json").write_text('{"a": 1}')
    assert model_sha256(model_dir) != before


def test_a_training_sets_hash_follows_rows_and_pictures(tmp_path: Path) -> None:
    picture, dataset = tmp_path / "0.png", tmp_path / "data.jsonl"
    picture.write_bytes(b"one")
    dataset.write_text(
        json.dumps({"messages": [], "images": [str(picture)]}) + "\n\n" + json.dumps({"messages": [1]}) + "\n"
    )
    before, num_rows = dataset_sha256(dataset)
    assert num_rows == 2
    assert dataset_sha256(dataset) == (before, 2)
    picture.write_bytes(b"two")
    assert dataset_sha256(dataset)[0] != before
    picture.write_bytes(b"one")
    assert dataset_sha256(dataset)[0] == before
    with open(dataset, "a") as file:
        file.write(json.dumps({"messages": [2]}) + "\n")
    assert dataset_sha256(dataset)[0] != before


def test_an_empty_or_broken_training_set_is_refused_by_name(tmp_path: Path) -> None:
    dataset = tmp_path / "data.jsonl"
    dataset.write_text("\n")
    with pytest.raises(UserError, match=r"data.jsonl: empty; expected at least one row"):
        dataset_sha256(dataset)
    dataset.write_text('{"messages": []}\n{"mess\n')
    with pytest.raises(UserError, match=r"data.jsonl: row 2 is no JSON object"):
        dataset_sha256(dataset)
