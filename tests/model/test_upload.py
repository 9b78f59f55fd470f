"""A checkpoint with its card can be used by somebody who has nothing of this repository, or it is refused."""

import re
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from helpers.card_inputs import MAX_PIXELS, CardInputs, build_card_inputs, declare
from helpers.tiny_donor_files import write_tiny_donors
from helpers.training_run import graft
from scripts.common.errors import UserError
from scripts.upload import check_checkpoint, load_checkpoint
from scripts.workflow.steps import command


@pytest.fixture(scope="module")
def uploaded(root: Path, tmp_path_factory: pytest.TempPathFactory) -> CardInputs:
    """A grafted checkpoint of a few thousand parameters, as stage 2 exports it, with a card by the program of the workflow."""
    inputs = build_card_inputs(tmp_path_factory.mktemp("inputs"))
    (inputs.checkpoint_dir / "config.json").unlink()
    settings = (inputs.checkpoint_dir / "settings.json").read_bytes()
    graft(root, *write_tiny_donors(inputs.directory / "tiny", dtype="float32"), "qwen3", inputs.checkpoint_dir)
    (inputs.checkpoint_dir / "ledger.tsv").unlink()
    (inputs.checkpoint_dir / "settings.json").write_bytes(settings.replace(b"/home/somebody/secret/", b""))
    declare(inputs, "stage2")
    with chdir(inputs.directory):
        subprocess.run(command(inputs.report.layout, "upload.make_model_card", stage=inputs.stage), check=True)
    return inputs


def test_a_sound_checkpoint_answers_with_the_code_that_comes_with_it(uploaded: CardInputs) -> None:
    found = check_checkpoint.check(uploaded.checkpoint_dir, Path(sys.executable))
    assert (found["model"], found["code_from"]) == ("Qwen2_5_VLQwen3ForConditionalGeneration", "the checkpoint")
    assert found["processor"] == "Qwen2_5_VLProcessor"
    assert found["num_picture_tokens"] == (168 // 28) * (112 // 28)
    assert found["num_results_in_card"] == 1, "the hub's library does not see the score of the card"
    assert found["license"] == "unknown"
    assert {"README.md", "configuration_qwen2_5_vl_qwen3.py", "modeling_qwen2_5_vl_qwen3.py"} <= found["files"].keys()


def test_the_cards_own_program_runs_as_it_is_printed(
    uploaded: CardInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", uploaded.card_path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert code.count("path/to/this/directory") == 1
    Image.new("RGB", (400, 300), "white").save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace("path/to/this/directory", str(uploaded.checkpoint_dir)), names)
    num_picture_tokens = int((names["inputs"]["input_ids"] == names["model"].config.image_token_id).sum())
    assert 1 <= num_picture_tokens <= MAX_PIXELS // 28**2


def test_settings_that_were_edited_since_the_training_are_not_uploaded(uploaded: CardInputs) -> None:
    path = uploaded.checkpoint_dir / "settings.json"
    settings = path.read_bytes()
    path.write_bytes(settings + b" ")
    try:
        with pytest.raises(
            UserError, match=r"settings\.json: edited since it was written: sha256 .* train stage2 again"
        ):
            check_checkpoint.check(uploaded.checkpoint_dir, Path(sys.executable))
    finally:
        path.write_bytes(settings)


def test_a_tensor_that_no_file_holds_is_named(uploaded: CardInputs, tmp_path: Path) -> None:
    """As after an export that forgot it: index and shard agree with each other, and not with the model."""
    directory = shutil.copytree(uploaded.checkpoint_dir, tmp_path / "checkpoint")
    (path,) = (path for path in directory.glob("*.safetensors") if "model.norm.weight" in load_file(path))
    tensors = load_file(path)
    tensors.pop("model.norm.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(load_checkpoint.Fault, match=r"missing_keys when loaded: .*norm\.weight \(1 such\)"):
        load_checkpoint.load(directory)


def test_code_that_still_needs_the_package_it_was_taken_from_is_refused(uploaded: CardInputs, tmp_path: Path) -> None:
    directory = shutil.copytree(uploaded.checkpoint_dir, tmp_path / "checkpoint")
    path = directory / "modeling_qwen2_5_vl_qwen3.py"
    path.write_text("import qwen2_5_vl_qwen3\n" + path.read_text())
    with pytest.raises(UserError, match=r"cannot be used .* with nothing of this repository .*qwen2_5_vl_qwen3"):
        check_checkpoint.load_alone(directory, Path(sys.executable))
    with pytest.raises(UserError, match=r"modeling_qwen2_5_vl_qwen3\.py: sha256 \w{64} found; expected sha256"):
        check_checkpoint.check(directory, Path(sys.executable))


def test_a_module_of_this_repository_among_the_loaded_ones_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_checkpoint, "PACKAGE", "no_such_package")  # the real one is importable beside other tests
    with pytest.raises(load_checkpoint.Fault, match=r"module .* was loaded from .*expected nothing of the repository"):
        load_checkpoint.check_repository_is_not_loaded(root)
