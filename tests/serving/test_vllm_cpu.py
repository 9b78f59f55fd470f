"""vLLM on a CPU says what transformers says, token for token, for text and pictures, by both ways of serving a graft.

Runs in the train environment, whose transformers gives the reference. tests/pipeline/test_vllm.py has the trained demo,
served and asked by the workflow's own program.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from helpers.graft_run import make_graft

pytestmark = [pytest.mark.slow, pytest.mark.full]

NUM_TOKENS = 16
# Between the best and the second best token of each step; float32 sums in another order differ by about 1e-6 here.
MIN_MARGIN = 1e-4
# vLLM's attention on CPUs has no smaller head than 32; again not hidden_size / num_attention_heads.
DONORS = {
    "dtype": "float32",
    "llm": {"hidden_size": 64, "num_attention_heads": 4, "head_dim": 32},
    "vl": {"rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}},
}
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


def chat(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def graft_dir(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_graft(root, tmp_path_factory.mktemp("graft"), "qwen3", "fresh", **DONORS)[0]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Text alone, one picture, another picture of another shape, and two pictures in one prompt."""
    directory = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, size in enumerate([(112, 56), (84, 140)]):
        shades = torch.rand((3, *size[::-1]), generator=torch.Generator().manual_seed(number)).mul(255).byte()
        paths.append(str(directory / f"{number}.png"))
        Image.fromarray(shades.permute(1, 2, 0).numpy()).save(paths[-1])
    return [
        {"prompt": "The quick brown fox", "pictures": []},
        {"prompt": chat("Who are you?"), "pictures": []},
        {"prompt": chat(f"{PICTURE}What is it?"), "pictures": paths[:1]},
        {"prompt": chat(f"{PICTURE}What is it?"), "pictures": paths[1:]},
        {"prompt": chat(f"{PICTURE} and {PICTURE}: which is larger?"), "pictures": paths},
    ]


@pytest.fixture(scope="module")
def expected(graft_dir: Path, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What transformers' generate says, request by request."""
    model = AutoModelForImageTextToText.from_pretrained(graft_dir, trust_remote_code=True, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # always NUM_TOKENS tokens
    processor = AutoProcessor.from_pretrained(graft_dir, trust_remote_code=True)
    answers = []
    for request in requests:
        pictures = [Image.open(path).convert("RGB") for path in request["pictures"]]
        inputs = processor(text=[request["prompt"]], images=pictures or None, return_tensors="pt")
        decoded = model.generate(
            **inputs, max_new_tokens=NUM_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        best = torch.cat(decoded.logits).topk(2).values
        margin = (best[:, 0] - best[:, 1]).min().item()
        assert margin > MIN_MARGIN, f"{margin}: too close to compare tokens; take another seed for the donors"
        prompt_ids = inputs["input_ids"][0].tolist()
        answers.append({"prompt_ids": prompt_ids, "ids": decoded.sequences[0, len(prompt_ids) :].tolist()})
    assert all(len(answer["ids"]) == NUM_TOKENS for answer in answers)
    assert answers[2]["ids"] != answers[3]["ids"], "the picture matters"
    return answers


def generate(
    root: Path, python: Path, directory: Path, model_dir: Path, requests: list[dict[str, Any]], options: list[str],
    **variables: str,
) -> dict[str, Any]:  # fmt: skip
    """Runs tests/helpers/generate_by_vllm.py to its end; its workers end with it."""
    (directory / "requests.json").write_text(json.dumps(requests))
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CACHE_ROOT": str(directory / "cache"),
        "HF_HOME": str(directory / "hf"),  # where the checkpoint's code is copied before it is imported
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: two imports of vLLM less
        **variables,
    }
    command = [
        python,
        "tests/helpers/generate_by_vllm.py",
        "--model-dir",
        model_dir,
        "--num-tokens",
        str(NUM_TOKENS),
        *options,
    ]
    command += ["--requests", directory / "requests.json", "--output", directory / "tokens.json"]
    process = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    result: dict[str, Any] = json.loads((directory / "tokens.json").read_text())
    return result


def test_the_installed_plugin_gives_transformers_tokens_without_trust_in_the_checkpoints_code(
    root: Path, serve_cpu_python: Path, tmp_path: Path, graft_dir: Path, requests: Any, expected: Any
) -> None:
    """vLLM finds the package by its entry point, in the process that inspects the class as well."""
    shutil.copytree(root / "model", tmp_path / "model")  # a build leaves files beside the sources
    install = [root / ".venv/bin/uv", "pip", "install", "--quiet", "--no-deps", "--python", serve_cpu_python]
    subprocess.run([*install, "--target", tmp_path / "installed", tmp_path / "model"], check=True)
    options = ["--model-impl", "auto"]
    result = generate(
        root, serve_cpu_python, tmp_path, graft_dir, requests, options, PYTHONPATH=str(tmp_path / "installed")
    )
    assert "qwen2_5_vl_qwen3.vllm_model.Qwen2_5_VLQwen3ForConditionalGeneration" in result["classes"]
    assert "vllm.model_executor.models.qwen3.Qwen3ForCausalLM" in result["classes"]
    assert result["answers"] == expected


def test_the_transformers_backend_gives_transformers_tokens_from_the_checkpoint_directory_alone(
    root: Path, serve_cpu_python: Path, tmp_path: Path, graft_dir: Path, requests: Any, expected: Any
) -> None:
    options = ["--model-impl", "transformers", "--trust-remote-code"]
    result = generate(root, serve_cpu_python, tmp_path, graft_dir, requests, options)
    assert "vllm.model_executor.models.transformers.TransformersMultiModalForCausalLM" in result["classes"]
    assert any(name.startswith("transformers_modules.") for name in result["classes"])
    assert result["answers"] == expected
