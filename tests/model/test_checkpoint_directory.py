"""A checkpoint directory just works in a fresh process: by its own code, or by the installed package without trusting any."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from helpers.graft_run import make_graft

# pipeline's way of asking; arguments: directory, picture, where to save, and what from_pretrained is told as JSON.
USE = """
import importlib.util, json, sys
from pathlib import Path
import torch
from transformers import AutoModel, AutoModelForImageTextToText, pipeline

directory, picture, output_dir, options = *sys.argv[1:4], json.loads(sys.argv[4])
if options:
    assert importlib.util.find_spec("qwen2_5_vl_qwen3") is None, "the package is on the path"
else:
    import qwen2_5_vl_qwen3
model, info = AutoModelForImageTextToText.from_pretrained(directory, output_loading_info=True, **options)
assert not any(info.values()), info
headless, info = AutoModel.from_pretrained(directory, output_loading_info=True, **options)
assert not info["missing_keys"] and not info["mismatched_keys"], info
model.eval().save_pretrained(output_dir)

ask = pipeline("image-text-to-text", model=directory, **options)
ask.tokenizer.save_pretrained(output_dir)
ask.processor.save_pretrained(output_dir)
content = [{"type": "image", "path": picture}, {"type": "text", "text": "What is it?"}]
answer = ask(text=[{"role": "user", "content": content}], max_new_tokens=8, return_full_text=False)
with torch.no_grad():
    logits = model(input_ids=torch.arange(5, 45)[None]).logits[0]
print(json.dumps({
    "classes": [f"{type(part).__module__}.{type(part).__name__}" for part in (model, headless, ask.model)],
    "answer": answer[0]["generated_text"], "logits": logits.tolist(),
}))
"""


@pytest.fixture(scope="module")
def directory(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds graft/ and a picture."""
    path = tmp_path_factory.mktemp("checkpoint")
    make_graft(root, path, "qwen3", "fresh", dtype="float32")
    shades = torch.rand((56, 112, 3), generator=torch.Generator().manual_seed(0)).mul(255).byte()
    Image.fromarray(shades.numpy()).save(path / "picture.png")
    return path


def use(directory: Path, output_dir: Path, options: dict[str, bool], search_path: str) -> dict[str, Any]:
    """Runs USE outside the repository and returns what it printed."""
    arguments = [directory / "graft", directory / "picture.png", output_dir, json.dumps(options)]
    process = subprocess.run(
        [sys.executable, "-c", USE, *map(str, arguments)], cwd=directory, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(directory / "hf"), "PYTHONPATH": search_path},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-4000:]
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def by_its_own_code(directory: Path) -> dict[str, Any]:
    return use(directory, directory / "saved", {"trust_remote_code": True}, "")


@pytest.fixture(scope="module")
def by_the_package(root: Path, directory: Path) -> dict[str, Any]:
    """As `pip install ./model` would have it, in a folder of its own; the checkpoint's code is nowhere to be found."""
    shutil.copytree(root / "model", directory / "model")  # a build leaves files beside the sources
    installed = directory / "installed"
    install = [root / ".venv/bin/uv", "pip", "install", "--quiet", "--no-deps", "--python", sys.executable]
    subprocess.run([*install, "--target", installed, directory / "model"], check=True)
    bare = directory / "bare"
    shutil.copytree(directory / "graft", bare / "graft", ignore=shutil.ignore_patterns("*.py"))
    shutil.copy(directory / "picture.png", bare)
    return use(bare, directory / "saved_by_the_package", {}, str(installed))


def load(graft_dir: Path) -> Any:
    model, info = AutoModelForImageTextToText.from_pretrained(
        graft_dir, trust_remote_code=True, output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def test_the_directorys_own_code_is_used_where_it_is_trusted(by_its_own_code: dict[str, Any]) -> None:
    assert all(name.startswith("transformers_modules.") for name in by_its_own_code["classes"])
    assert [name.rsplit(".", 1)[1] for name in by_its_own_code["classes"]] == [
        "Qwen2_5_VLQwen3ForConditionalGeneration", "Qwen2_5_VLQwen3Model", "Qwen2_5_VLQwen3ForConditionalGeneration",
    ]  # fmt: skip


def test_the_installed_package_needs_no_trust_and_says_the_same(
    by_its_own_code: dict[str, Any], by_the_package: dict[str, Any]
) -> None:
    assert all(
        name.startswith("qwen2_5_vl_qwen3.modeling_qwen2_5_vl_qwen3.Qwen2_5_VLQwen3")
        for name in by_the_package["classes"]
    )
    assert by_the_package["logits"] == by_its_own_code["logits"]
    assert by_the_package["answer"] == by_its_own_code["answer"]


def test_the_pipeline_answers_what_the_model_generates_for_the_same_picture(
    directory: Path, by_its_own_code: dict[str, Any]
) -> None:
    model = load(directory / "graft")
    processor = AutoProcessor.from_pretrained(directory / "graft", trust_remote_code=True)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[Image.open(directory / "picture.png")], return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert by_its_own_code["answer"] == processor.decode(ids, skip_special_tokens=True) != ""


@pytest.mark.parametrize(("user", "saved"), [("by_its_own_code", "saved"), ("by_the_package", "saved_by_the_package")])
def test_what_save_pretrained_writes_is_the_same_checkpoint_with_its_code(
    directory: Path, user: str, saved: str, request: pytest.FixtureRequest
) -> None:
    logits = request.getfixturevalue(user)["logits"]
    before, after = (
        {name: tensor for path in (directory / part).glob("*.safetensors") for name, tensor in load_file(path).items()}
        for part in ("graft", saved)
    )
    assert before.keys() == after.keys(), "the names on disk"
    assert all(torch.equal(before[name], after[name]) for name in before)
    old, new = (json.loads((directory / part / "config.json").read_text()) for part in ("graft", saved))
    assert (new["auto_map"], new["architectures"]) == (old["auto_map"], old["architectures"])
    for path in (directory / "graft").glob("*.py"):
        assert (directory / saved / path.name).read_text() == path.read_text()

    with torch.no_grad():
        assert load(directory / saved)(input_ids=torch.arange(5, 45)[None]).logits[0].tolist() == logits
    processor = AutoProcessor.from_pretrained(directory / saved, trust_remote_code=True)
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
