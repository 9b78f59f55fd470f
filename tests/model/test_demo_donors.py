"""The demo's donors stand in the hub's format, are gated and repeatable, and know the prompt that everything else uses."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

from helpers.make_tiny_donors import LLM_LANGUAGE, NUM_BASE_TOKENS, VISION, VL_LANGUAGE
from scripts.common.files import sha256_of_file
from scripts.demo.donor_files import mrope_section
from scripts.demo.make_demo_language_donor import Questions, text_accuracy
from scripts.demo.make_demo_vision_donor import attend_as_published, attend_in_one_call, read_scans, to_patches
from scripts.demo.prompt_texts import (
    ANSWER_END,
    LETTERS,
    NAMING_REQUEST,
    picture_text,
    question_text,
    text_before_answer,
)
from scripts.donors.safetensors_files import read_checkpoint

OPTIONS = ["3", "5", "7", "0"]
TRAINING = {"num_steps": 3, "batch_size": 4, "learning_rate": 0.002, "weight_decay": 0.01}
LANGUAGE_DONOR = TRAINING | {
    "num_base_tokens": NUM_BASE_TOKENS, "language": asdict(LLM_LANGUAGE),
    "adam_beta2": 0.98, "noise": 1.0, "dropout": 0.5, "num_curriculum_steps": 2, "num_steps_per_naming": 2,
    "nums_picture_tokens": [4], "num_gate_picture_tokens": 4, "ending_weight": 0.1, "min_text_accuracy": 0.0,
}  # fmt: skip
VISION_DONOR = TRAINING | {
    "num_base_tokens": NUM_BASE_TOKENS, "vision": asdict(VISION), "language": asdict(VL_LANGUAGE),
    "picture_px": 56, "max_rotation_degrees": 10, "max_scale_change": 0.1, "max_shift": 0.07, "min_dev_accuracy": 0.0,
}  # fmt: skip

READ_BY_TRANSFORMERS_4 = """
import sys
from transformers import AutoConfig, __version__
assert __version__.startswith("4."), __version__
print(*[type(AutoConfig.from_pretrained(directory)).__name__ for directory in sys.argv[1:]])
"""

ASK_BY_VLMEVALKIT = """
import json, sys
from vlmeval.api.gpt import OpenAIWrapper
from vlmeval.dataset.image_mcq import CustomMCQDataset
dataset = CustomMCQDataset("Digits")
api = OpenAIWrapper.__new__(OpenAIWrapper)
api.system_prompt, api.img_size, api.img_detail = None, -1, "low"
print(json.dumps(api.prepare_inputs(dataset.build_prompt(0))))
"""

ENCODE_BY_SWIFT = """
import json, sys
sys.path.insert(0, "model/qwen2_5_vl_qwen3")
import swift_plugin
from swift.infer_engine import InferRequest
from swift.model import get_model_processor
from swift.template import get_template
directory, row, request = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
name = swift_plugin.NAME
_, processor = get_model_processor(directory, model_type=name, load_model=False)
template = get_template(processor, template_type=name)
template.set_mode("train")
training = template.encode(row)
template.set_mode("transformers")
asking = template.encode(InferRequest(messages=request))
print(json.dumps([list(training["input_ids"]), list(training["labels"]), list(asking["input_ids"])]))
"""


@pytest.fixture(scope="session")
def digits_dir(root: Path, train_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data with one copy a picture."""
    directory = tmp_path_factory.mktemp("data") / "digits"
    settings = {
        "size_px": 112, "num_dev": 20, "num_test": 20, "num_copies": 1,
        "max_shift": 0.07, "max_rotation_degrees": 10, "max_scale_change": 0.1, "seed": 1,
    }  # fmt: skip
    command = [
        train_python,
        "scripts",
        "demo.make_digits",
        "--settings",
        json.dumps(settings),
        "--output-dir",
        directory,
    ]
    subprocess.run(command, cwd=root, check=True)
    return directory


@pytest.fixture
def make_donor(root: Path, digits_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of the two programs as a rule does."""

    def run(role: str, output_dir: Path, seed: int = 0, **changes: Any) -> subprocess.CompletedProcess[str]:
        settings = (VISION_DONOR if role == "vision" else LANGUAGE_DONOR) | changes
        command = [sys.executable, "scripts", f"demo.make_demo_{role}_donor", "--settings", json.dumps(settings)]
        command += ["--seed", str(seed), "--output-dir", str(output_dir)]
        command += ["--digits-dir", str(digits_dir)] if role == "vision" else []
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    return run


def checksums(directory: Path) -> dict[str, str]:
    return {path.name: sha256_of_file(path) for path in sorted(directory.iterdir())}


@pytest.mark.parametrize(
    ("role", "model_class"), [("vl", Qwen2_5_VLForConditionalGeneration), ("llm", AutoModelForCausalLM)]
)
def test_nothing_is_missing_or_left_over_when_a_donor_is_loaded(
    tiny_donors_dir: Path, role: str, model_class: Any
) -> None:
    model, info = model_class.from_pretrained(tiny_donors_dir / role, output_loading_info=True)
    assert not any(info.values()), info
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize(("role", "published"), [("vl", "Qwen2.5-VL-7B-Instruct"), ("llm", "Qwen3-8B")])
def test_the_configuration_has_exactly_the_published_keys(
    root: Path, tiny_donors_dir: Path, role: str, published: str
) -> None:
    ours = json.loads((tiny_donors_dir / role / "config.json").read_text())
    theirs = json.loads((root / "config/models" / published / "config.json").read_text())
    assert ours.keys() == theirs.keys()
    assert ours.get("vision_config", {}).keys() == theirs.get("vision_config", {}).keys()


def test_weights_have_the_published_names_in_shards_that_the_index_names(tiny_donors_dir: Path) -> None:
    for role, prefixes in (("vl", {"visual", "model", "lm_head"}), ("llm", {"model"})):
        assert {name.split(".")[0] for name in read_checkpoint(tiny_donors_dir / role)} == prefixes
    assert len(list((tiny_donors_dir / "vl").glob("model-*.safetensors"))) > 1
    assert "visual.merger.mlp.2.weight" in read_checkpoint(tiny_donors_dir / "vl")


def test_transformers_4_reads_both_configurations(evaluate_python: Path, tiny_vl_dir: Path, tiny_llm_dir: Path) -> None:
    command = [evaluate_python, "-c", READ_BY_TRANSFORMERS_4, tiny_vl_dir, tiny_llm_dir]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.split()[-2:] == ["Qwen2_5_VLConfig", "Qwen3Config"]


def test_mrope_sections_have_the_published_shares() -> None:
    assert mrope_section(128) == [16, 24, 24]
    assert mrope_section(16) == [2, 3, 3]


@pytest.mark.full
@pytest.mark.parametrize("role", ["vision", "language"])
def test_a_donor_repeats_to_the_byte_and_changes_with_the_seed(
    role: str, make_donor: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        result = make_donor(role, tmp_path / name, seed)
        assert result.returncode == 0, result.stderr
    assert checksums(tmp_path / "one") == checksums(tmp_path / "two")
    different = checksums(tmp_path / "one").items() ^ checksums(tmp_path / "three").items()
    assert different and all(name.endswith(".safetensors") for name, _ in different)


@pytest.mark.parametrize(("role", "gate"), [("vision", "min_dev_accuracy"), ("language", "min_text_accuracy")])
def test_a_donor_below_its_gate_is_refused_and_leaves_nothing(
    role: str, gate: str, make_donor: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    result = make_donor(role, tmp_path / "out", **{gate: 0.99})
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"error: demo.{role}_donor:" in result.stderr and gate in result.stderr and "num_steps" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_directory_with_something_of_the_users_is_not_replaced(
    make_donor: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    result = make_donor("language", tmp_path)
    assert result.returncode == 1 and "thesis.tex" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_data_splits_share_no_scan_and_questions_are_the_same_in_both_forms(digits_dir: Path) -> None:
    header, *rows = [line.split("\t") for line in (digits_dir / "pictures.tsv").read_text().splitlines()]
    by_split: dict[str, set[str]] = {}
    for row in rows:
        values = dict(zip(header, row, strict=True))
        by_split.setdefault(values["split"], set()).add(values["scan"])
    assert {split: len(scans) for split, scans in by_split.items()} == {"train": 1757, "dev": 20, "test": 20}
    assert len(set().union(*by_split.values())) == 1797
    names, *questions = [line.split("\t") for line in (digits_dir / "test.tsv").read_text().splitlines()]
    lines = [json.loads(line) for line in (digits_dir / "test.jsonl").read_text().splitlines()]
    for fields, line in zip(questions, lines, strict=True):
        values = dict(zip(names, fields, strict=True))
        assert line["messages"][0]["content"] == "<image>" + question_text([values[letter] for letter in LETTERS])
        assert line["messages"][1]["content"] == values["answer"]
        assert base64.b64decode(values["image"]) == (digits_dir / line["images"][0]).read_bytes()


def test_every_second_training_copy_is_only_to_be_named_and_no_other_row_is(digits_dir: Path) -> None:
    header, *rows = [line.split("\t") for line in (digits_dir / "pictures.tsv").read_text().splitlines()]
    pictures = {values[0]: dict(zip(header, values, strict=True)) for values in rows}
    for split in ("train", "dev", "test"):
        for line in (digits_dir / f"{split}.jsonl").read_text().splitlines():
            row = json.loads(line)
            picture = pictures[row["images"][0]]
            asked, answered = (message["content"] for message in row["messages"])
            is_named = split == "train" and picture["copy"] in ("0", "2", "4")
            assert (asked == f"<image>{NAMING_REQUEST}") == is_named
            assert (answered == picture["digit"]) == is_named


def test_patches_are_those_of_the_published_picture_processor(digits_dir: Path) -> None:
    grey, _ = read_scans(digits_dir, "dev", 56)
    pictures = [Image.fromarray(picture.byte().numpy()).convert("RGB") for picture in grey[:3]]
    processor = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=3136)
    expected = processor(images=pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(to_patches(grey[:3]), expected, rtol=1e-4, atol=1e-4)


def test_attending_in_one_call_equals_picture_after_picture(tiny_vl_dir: Path) -> None:
    tower = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_vl_dir).model.visual
    patches, grid = to_patches(torch.rand(5, 56, 56) * 255), torch.tensor([[1, 4, 4]] * 5)
    with torch.no_grad():
        expected = tower(patches, grid_thw=grid).pooler_output
        attend_in_one_call(tower, 16)
        torch.testing.assert_close(tower(patches, grid_thw=grid).pooler_output, expected)
        attend_as_published(tower)
        assert torch.equal(tower(patches, grid_thw=grid).pooler_output, expected)


def test_drawn_questions_are_whole_conversations_with_the_right_answer(tiny_llm_dir: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_llm_dir / "tokenizer.json"))
    torch.manual_seed(0)
    batch = Questions(tokenizer).draw(20, 4, 2)
    for ids in batch.ids:
        shown = tokenizer.decode([ids[batch.picture_places[0]]])
        text = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        options = [text.split(f"{letter}. ")[1][0] for letter in LETTERS]
        content = picture_text(2).replace("<|image_pad|>", shown) + question_text(options)
        assert len(set(options)) == 4
        assert text == text_before_answer(content) + LETTERS[options.index(shown)] + ANSWER_END


def test_a_random_model_does_not_pass_the_text_gate(tiny_llm_dir: Path) -> None:
    questions = Questions(Tokenizer.from_file(str(tiny_llm_dir / "tokenizer.json")))
    assert text_accuracy(AutoModelForCausalLM.from_pretrained(tiny_llm_dir), questions, 4) < 0.5


@pytest.mark.full
def test_training_row_donors_text_and_benchmark_agree_token_for_token(
    root: Path, evaluate_python: Path, tiny_llm_dir: Path, tiny_vl_dir: Path, digits_dir: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What VLMEvalKit sends, as ms-swift encodes it, is the training row without its answer."""
    (tmp_path / "Digits.tsv").write_bytes((digits_dir / "test.tsv").read_bytes())
    monkeypatch.setenv("LMUData", str(tmp_path))
    monkeypatch.setenv("MAX_PIXELS", "3136")
    ask = subprocess.run(
        [evaluate_python, "-c", ASK_BY_VLMEVALKIT], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    request = json.loads(ask.stdout.splitlines()[-1])

    model_dir = tmp_path / "model"
    model_dir.mkdir()
    for directory in (tiny_llm_dir, tiny_vl_dir):
        for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "preprocessor_config.json"):
            if (directory / name).exists() and not (model_dir / name).exists():
                (model_dir / name).write_bytes((directory / name).read_bytes())
    (model_dir / "config.json").write_bytes((tiny_vl_dir / "config.json").read_bytes())

    row = json.loads((digits_dir / "test.jsonl").read_text().splitlines()[0])
    row["images"] = [str(digits_dir / path) for path in row["images"]]
    command = [sys.executable, "-c", ENCODE_BY_SWIFT, str(model_dir), json.dumps(row), json.dumps(request)]
    encoded = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert encoded.returncode == 0, encoded.stderr
    training, labels, asking = json.loads(encoded.stdout.splitlines()[-1])

    tokenizer = Tokenizer.from_file(str(tiny_llm_dir / "tokenizer.json"))
    content = row["messages"][0]["content"].replace("<image>", picture_text(4))
    answer = row["messages"][1]["content"] + ANSWER_END
    expected = tokenizer.encode(text_before_answer(content) + answer).ids
    assert training == expected
    assert [label for label in labels if label != -100] == tokenizer.encode(answer).ids
    assert asking + tokenizer.encode(answer).ids == training
