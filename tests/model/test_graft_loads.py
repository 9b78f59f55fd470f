"""A grafted directory is usable as it stands: transformers loads processor and model from it and misses nothing."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from helpers.graft_run import make_graft
from helpers.tiny_donor_files import PICTURE_TEMPLATE

# Loads with transformers 4, in the environment that has it.
LOAD_BY_TRANSFORMERS_4 = """
import json, sys
from transformers import AutoModelForImageTextToText, AutoProcessor, __version__
model, info = AutoModelForImageTextToText.from_pretrained(sys.argv[1], output_loading_info=True)
processor = AutoProcessor.from_pretrained(sys.argv[1])
print(json.dumps({
    "version": __version__, "model": type(model).__name__, "processor": type(processor).__name__,
    "info": {key: list(value) for key, value in info.items()},
    "sections": model.config.text_config.rope_scaling["mrope_section"],
}))
"""


def load(graft_dir: Path) -> Any:
    """The model, after asserting that no tensor was missing, unexpected, of another shape or newly initialised."""
    model, info = AutoModelForImageTextToText.from_pretrained(
        graft_dir, trust_remote_code=True, output_loading_info=True, dtype="auto"
    )
    assert not any(info.values()), info
    return model.eval()


def check_pictures(model: Any, graft_dir: Path) -> None:
    """The processor puts a picture's tokens into the prompt, and the picture changes what the model says."""
    processor = AutoProcessor.from_pretrained(graft_dir, trust_remote_code=True)
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert processor.chat_template == processor.tokenizer.chat_template == PICTURE_TEMPLATE
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    logits = []
    for colour in ("black", "white"):
        inputs = processor(text=[prompt], images=[Image.new("RGB", (112, 56), colour)], return_tensors="pt")
        assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 4 * 2
        with torch.no_grad():
            logits.append(model(**inputs).logits)
    assert logits[0].isfinite().all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize(
    "donor_changes",
    [
        {"dtype": "float32"},
        {"dtype": "bfloat16", "style": "nested", "layout": "new", "tied": True, "num_shards": 1},
        {"dtype": "float32", "llm": {"hidden_size": 96}},  # a head size that is not hidden_size / heads
    ],
    ids=["as-published", "as-saved-by-transformers-5", "own-head-size"],
)
def test_qwen3_loads_whole_and_its_text_logits_are_the_donors_bit_for_bit(
    root: Path, tmp_path: Path, donor_changes: dict[str, Any]
) -> None:
    graft_dir, llm_dir = make_graft(root, tmp_path, "qwen3", "fresh", **donor_changes)
    model, donor = load(graft_dir), AutoModelForCausalLM.from_pretrained(llm_dir, dtype="auto").eval()
    assert type(model).__name__ == "Qwen2_5_VLQwen3ForConditionalGeneration"
    assert str(model.dtype) == f"torch.{donor_changes['dtype']}"
    torch.manual_seed(0)
    ids = torch.randint(0, 256, (2, 40))
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, donor(input_ids=ids).logits)
    check_pictures(model, graft_dir)


@pytest.mark.parametrize("tied", [False, True])
def test_the_stock_architecture_loads_whole_in_transformers_5_and_4(
    root: Path, evaluate_python: Path, tmp_path: Path, tied: bool
) -> None:
    graft_dir, _ = make_graft(root, tmp_path, "qwen2_5_vl", "keep", tied=tied)
    model = load(graft_dir)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    check_pictures(model, graft_dir)
    process = subprocess.run(
        [evaluate_python, "-c", LOAD_BY_TRANSFORMERS_4, graft_dir], capture_output=True, text=True, check=True
    )
    loaded = json.loads(process.stdout.splitlines()[-1])
    assert loaded["version"].startswith("4.")
    assert (loaded["model"], loaded["processor"]) == ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor")
    assert not any(loaded["info"].values()), loaded["info"]
    assert loaded["sections"] == [2, 3, 3]
