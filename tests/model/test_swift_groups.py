"""What ms-swift trains of a graft under each setting of its freeze flags, whole and by LoRA, by its own code."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.graft_run import make_graft

pytest.importorskip("swift", reason="the train environment has it")

GROUPS = ("language_model", "vision_tower", "aligner")
# Nothing would train with all three frozen.
FROZEN = [flags for flags in itertools.product([False, True], repeat=3) if not all(flags)]
# ms-swift's all-linear leaves the head out; the patch embedding is a convolution.
NOT_LINEAR = ("norm", "ln_q", "embed_tokens", "lm_head", "patch_embed")

# In a process of its own: importing ms-swift changes transformers' classes.
PREPARE = """
import json, sys
from swift.arguments import SftArguments
from swift.model import get_model_processor
from swift.pipelines.train.tuner import TunerMixin

model_dir, plugin, dataset, output, cases = sys.argv[1:]
results = []
for tuner, (freeze_llm, freeze_vit, freeze_aligner) in json.loads(cases):
    arguments = SftArguments(
        model=model_dir, model_type="qwen2_5_vl_qwen3", template="qwen2_5_vl_qwen3", external_plugins=[plugin],
        dataset=[dataset], output_dir=output, add_version=False, use_cpu=True, torch_dtype="float32", tuner_type=tuner,
        freeze_llm=freeze_llm, freeze_vit=freeze_vit, freeze_aligner=freeze_aligner, target_modules=["all-linear"],
    )
    model, _ = get_model_processor(model_dir, model_type=arguments.model_type, torch_dtype=arguments.torch_dtype)
    model = TunerMixin.prepare_model(arguments, model)
    results.append({name: parameter.requires_grad for name, parameter in model.named_parameters()})
print(json.dumps(results))
"""


def group_of(name: str) -> str:
    """The module group of a parameter, by its name alone."""
    if "visual.merger." in name:
        return "aligner"
    return "vision_tower" if "visual." in name else "language_model"


@pytest.fixture(scope="module")
def prepared(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, tuple[bool, ...]], dict[str, bool]]:
    """For each tuner and setting: whether each parameter trains."""
    directory = tmp_path_factory.mktemp("swift")
    graft_dir, _ = make_graft(root, directory, "qwen3", "fresh", dtype="float32")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (directory / "data.jsonl").write_text(json.dumps({"messages": turns}))
    cases = [(tuner, flags) for tuner in ("full", "lora") for flags in FROZEN]
    paths = [graft_dir, root / "model/qwen2_5_vl_qwen3/swift_plugin.py", directory / "data.jsonl", directory / "out"]
    process = subprocess.run(
        [sys.executable, "-c", PREPARE, *map(str, paths), json.dumps(cases)],
        env={**os.environ, "USE_HF": "1", "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-4000:]
    results: list[dict[str, bool]] = json.loads(process.stdout.splitlines()[-1])
    return dict(zip(cases, results, strict=True))


@pytest.mark.parametrize("frozen", FROZEN, ids=str)
def test_exactly_the_groups_that_are_not_frozen_train(prepared: Any, frozen: tuple[bool, ...]) -> None:
    trains = prepared["full", frozen]
    expected = dict(zip(GROUPS, [not flag for flag in frozen], strict=True))
    assert {group_of(name) for name in trains} == set(GROUPS)
    assert {name: expected[group_of(name)] for name in trains} == trains


@pytest.mark.parametrize("frozen", FROZEN, ids=str)
def test_lora_attaches_to_every_linear_layer_of_those_groups_and_trains_nothing_else(
    prepared: Any, frozen: tuple[bool, ...]
) -> None:
    trains = prepared["lora", frozen]
    free = {group for group, flag in zip(GROUPS, frozen, strict=True) if not flag}
    assert all(flag == (".lora_" in name) for name, flag in trains.items())
    adapted = {name.split(".lora_")[0] for name in trains if ".lora_" in name}
    linear = {
        name.removeprefix("base_model.model.").replace(".base_layer", "").removesuffix(".weight")
        for name in trains
        if name.endswith(".weight") and ".lora_" not in name and not any(part in name for part in NOT_LINEAR)
    }
    assert adapted == {f"base_model.model.{name}" for name in linear if group_of(f"{name}.") in free}
