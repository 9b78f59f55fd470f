"""A donor's files beside the weights: what transformers cannot use, or uses in a way that cannot be meant, is named."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.donors import usable_files
from scripts.donors.usable_files import faults_here, usability_faults


def rows_of(directory: Path) -> int:
    config = json.loads((directory / "config.json").read_text())
    rows: int = (config.get("text_config") or config)["vocab_size"]
    return rows


@pytest.fixture
def vl_dir(tiny_vl_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_vl_dir, tmp_path / "vl")


@pytest.fixture
def llm_dir(tiny_llm_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_llm_dir, tmp_path / "llm")


def change(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


def test_files_as_they_are_published_have_no_fault(vl_dir: Path, llm_dir: Path) -> None:
    change(
        llm_dir / "generation_config.json",
        {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [256, 258]},
    )
    change(vl_dir / "generation_config.json", {"repetition_penalty": 1.05, "temperature": 1e-06, "do_sample": True})
    assert list(faults_here(vl_dir, "vl", rows_of(vl_dir))) == []
    assert list(faults_here(llm_dir, "llm", rows_of(llm_dir))) == []
    neutral = {
        "no_repeat_ngram_size": 0,
        "length_penalty": 1.0,
        "min_length": 0,
        "min_new_tokens": None,
        "use_cache": True,
    }
    change(
        llm_dir / "generation_config.json", {"do_sample": False, "temperature": 0.0, "chat_format": "chatml", **neutral}
    )
    assert list(faults_here(llm_dir, "llm", rows_of(llm_dir))) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"eos_token_id": 10**6}, "eos_token_id is 1000000; expected ids from 0 to"),
        ({"eos_token_id": [1, -1]}, "eos_token_id is [1, -1]"),
        ({"eos_token_id": "<|im_end|>"}, "eos_token_id is '<|im_end|>'"),
        ({"pad_token_id": True}, "pad_token_id is True"),
        ({"eos_token_id": []}, "eos_token_id is []"),
        ({"suppress_tokens": [1]}, "suppress_tokens is [1]; expected none: no request sets it"),
        ({"bad_words_ids": [[1], [2, 3]]}, "bad_words_ids is [[1], [2, 3]]; expected none"),
        ({"min_new_tokens": 1}, "min_new_tokens is 1; expected none"),
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size is 3; expected none"),
        ({"min_p": 0.1}, "min_p is 0.1; expected none"),
        ({"bos_token_id": 2.5}, "bos_token_id is 2.5"),
        ({"do_sample": True, "temperature": -1.0}, "temperature"),
        ({"temperature": "hot"}, "cannot be used by transformers"),
        ({"do_sample": True, "top_p": -0.5}, "top_p"),
        ({"do_sample": True, "top_k": "all"}, "top_k"),
        ({"repetition_penalty": -2.0}, "penalty"),
        ({"bad_words_ids": 5}, "bad_words_ids"),
        ({"suppress_tokens": "all"}, "cannot be used by transformers"),
    ],
)
def test_generation_settings_that_cannot_be_used_are_named(
    llm_dir: Path, changes: dict[str, Any], expected: str
) -> None:
    path = llm_dir / "generation_config.json"
    change(path, changes)
    [fault] = faults_here(llm_dir, "llm", rows_of(llm_dir))
    assert fault.startswith(f"{path}: ") and expected in fault


@pytest.mark.parametrize("name", ["preprocessor_config.json", "video_preprocessor_config.json"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rescale_factor": 1e9}, "pixels become values from"),
        ({"rescale_factor": "x"}, "cannot be used by transformers"),
        ({"rescale_factor": 1e-9}, "above black"),
        ({"do_rescale": False}, "pixels become values from"),
        ({"image_std": [1e-9, 1e-9, 1e-9]}, "pixels become values from"),
        ({"image_std": [0.2, 0.2, -0.2]}, "above black"),
        ({"image_mean": [float("nan")] * 3}, "pixels become values from"),
        ({"do_resize": False}, "cannot be used by transformers"),
        ({"resample": 99}, "cannot be used by transformers"),
        ({"resample": "smooth"}, "cannot be used by transformers"),
        ({"size": [1, 2]}, "cannot be used by transformers"),
        ({"merge_size": 0}, "cannot be used by transformers"),
    ],
)
def test_picture_and_video_processing_that_cannot_be_meant_is_named(
    vl_dir: Path, name: str, changes: dict[str, Any], expected: str
) -> None:
    path = vl_dir / name
    shutil.copyfile(vl_dir / "preprocessor_config.json", vl_dir / "video_preprocessor_config.json")
    change(path, changes)
    [fault] = faults_here(vl_dir, "vl", rows_of(vl_dir))
    assert fault.startswith(f"{path}: ") and expected in fault


def change_tokenizer(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    tokenizer = json.loads(path.read_text())
    edit(tokenizer)
    path.write_text(json.dumps(tokenizer))


def an_id_too_large(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[next(iter(vocabulary))] = 10**6


def letters_dropped(tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"] = {"type": "Lowercase"}


def line_end_eaten(tokenizer: dict[str, Any]) -> None:
    for token in tokenizer["added_tokens"]:
        token["rstrip"] = True


def other_decoder(tokenizer: dict[str, Any]) -> None:
    tokenizer["decoder"] = None


def no_model(tokenizer: dict[str, Any]) -> None:
    del tokenizer["model"]


def two_letters_one_id(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["\u00a4"] = vocabulary["\u00a5"]


def a_byte_missing(tokenizer: dict[str, Any]) -> None:
    del tokenizer["model"]["vocab"]["\u00b6"]


def merges_of_nothing(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["merges"] = ["no such"]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (an_id_too_large, "has the id 1000000"),
        (letters_dropped, "comes back otherwise"),
        (line_end_eaten, "comes back otherwise"),
        (other_decoder, "comes back otherwise"),
        (two_letters_one_id, "comes back otherwise"),
        (a_byte_missing, "comes back otherwise"),
        (no_model, "cannot be used by transformers"),
        (merges_of_nothing, "cannot be used by transformers"),
    ],
)
def test_a_tokenizer_that_loses_text_or_has_no_row_for_a_token_is_named(
    llm_dir: Path, edit: Callable[[dict[str, Any]], None], expected: str
) -> None:
    path = llm_dir / "tokenizer.json"
    change_tokenizer(path, edit)
    fault = next(iter(faults_here(llm_dir, "llm", rows_of(llm_dir))))
    assert fault.startswith(f"{path}: ") and expected in fault


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("vocab.json", {"a": 98}, "token 'a' has the id 98 in vocab.json"),
        ("added_tokens.json", {"<|image_pad|>": 5}, "token '<|image_pad|>' has the id 5 in added_tokens.json"),
        ("added_tokens.json", {"<|new|>": 5}, "token '<|new|>' of added_tokens.json is none of tokenizer.json"),
        ("special_tokens_map.json", {"eos_token": 5}, "special_tokens_map.json: eos_token is 5"),
    ],
)
def test_files_that_contradict_the_tokenizer_are_named(
    llm_dir: Path, name: str, content: dict[str, Any], expected: str
) -> None:
    (llm_dir / name).write_text(json.dumps(content))
    assert expected in "".join(faults_here(llm_dir, "llm", rows_of(llm_dir)))


def test_an_added_token_that_the_tokenizer_lacks_is_named(llm_dir: Path) -> None:
    """transformers would add it, and readers of tokenizer.json alone would cut it up."""

    def drop(tokenizer: dict[str, Any]) -> None:
        tokenizer["added_tokens"].pop()

    tokens = json.loads((llm_dir / "tokenizer.json").read_text())["added_tokens"]
    listed = {str(each["id"]): {key: each[key] for key in each if key != "id"} for each in tokens}
    change(llm_dir / "tokenizer_config.json", {"added_tokens_decoder": listed})
    assert list(faults_here(llm_dir, "llm", rows_of(llm_dir))) == []
    change_tokenizer(llm_dir / "tokenizer.json", drop)
    expected = f"token {tokens[-1]['content']!r} of tokenizer_config.json is none of tokenizer.json"
    assert expected in "".join(faults_here(llm_dir, "llm", rows_of(llm_dir)))


def test_a_length_of_texts_below_one_is_named(llm_dir: Path) -> None:
    change(llm_dir / "tokenizer_config.json", {"model_max_length": -5})
    assert "model_max_length is -5; expected a positive number" in "".join(
        faults_here(llm_dir, "llm", rows_of(llm_dir))
    )


def test_two_added_tokens_of_one_id_are_named(llm_dir: Path) -> None:
    def merge(tokenizer: dict[str, Any]) -> None:
        tokenizer["added_tokens"][-1]["id"] = tokenizer["added_tokens"][0]["id"]

    change_tokenizer(llm_dir / "tokenizer.json", merge)
    assert "expected one id" in "".join(faults_here(llm_dir, "llm", rows_of(llm_dir)))


def test_a_special_token_that_the_vocabulary_does_not_have_is_named(llm_dir: Path) -> None:
    change(llm_dir / "tokenizer_config.json", {"eos_token": "<|imend|>"})
    assert "the special token '<|imend|>'" in "".join(faults_here(llm_dir, "llm", rows_of(llm_dir)))


@pytest.mark.parametrize("found", ["<|im_end|>", 10**6, [], True])
def test_an_id_of_config_json_that_is_none_is_named_there(llm_dir: Path, found: object) -> None:
    num_rows = rows_of(llm_dir)
    change(llm_dir / "config.json", {"eos_token_id": found})
    fault = next(iter(faults_here(llm_dir, "llm", num_rows)))
    assert fault.startswith(f"{llm_dir / 'config.json'}: eos_token_id is {found!r}; expected ids from 0")


def test_a_picture_token_that_fills_rows_up_is_named(llm_dir: Path) -> None:
    change(llm_dir / "tokenizer_config.json", {"pad_token": "<|image_pad|>"})
    said = "".join(faults_here(llm_dir, "llm", rows_of(llm_dir)))
    assert "pad_token is '<|image_pad|>', which stands for pictures" in said


def test_more_rows_than_tokens_are_no_fault_and_fewer_are(llm_dir: Path) -> None:
    assert list(faults_here(llm_dir, "llm", rows_of(llm_dir) + 1000)) == []
    assert "expected ids below 100, the vocab_size" in "".join(faults_here(llm_dir, "llm", 100))


def test_files_that_end_the_library_are_one_fault(llm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable_files, "_CALL", "import os; os.abort()")
    [fault] = usability_faults(llm_dir, "llm", rows_of(llm_dir))
    assert fault.startswith(f"{llm_dir}: transformers ended")


def test_by_hand_a_fault_is_one_line_exit_status_1_and_no_record(root: Path, llm_dir: Path, tmp_path: Path) -> None:
    manifest_path, record_path = tmp_path / "llm.json", tmp_path / "llm.check.json"
    donor = ["--role", "llm", "--dir", str(llm_dir), "--manifest", str(manifest_path)]

    def run(program: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts", program, *donor, *more]
        return subprocess.run(command, cwd=root, text=True, capture_output=True)

    source = json.dumps({"kind": "local", "path": str(llm_dir)})
    assert run("donors.fetch_donor", "--source", source).returncode == 0
    assert run("donors.check_donor", "--output", str(record_path)).returncode == 0
    assert json.loads(record_path.read_text())["transformers"]
    record_path.unlink()
    manifest_path.unlink()
    change(llm_dir / "generation_config.json", {"eos_token_id": 10**6})
    assert run("donors.fetch_donor", "--source", source).returncode == 0
    finished = run("donors.check_donor", "--output", str(record_path))
    assert finished.returncode == 1 and not record_path.exists()
    [line] = finished.stderr.splitlines()
    assert line.startswith(f"error: {llm_dir / 'generation_config.json'}: eos_token_id is 1000000; expected")


def test_merges_that_two_files_list_otherwise_are_named(llm_dir: Path) -> None:
    """Readers of the one would cut a text into other tokens than readers of the other."""
    tokenizer = json.loads((llm_dir / "tokenizer.json").read_text())
    merges = [each if isinstance(each, str) else " ".join(each) for each in tokenizer["model"]["merges"]]
    (llm_dir / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    assert list(faults_here(llm_dir, "llm", rows_of(llm_dir))) == []
    (llm_dir / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, "x y"]) + "\n")
    (fault,) = faults_here(llm_dir, "llm", rows_of(llm_dir))
    assert f"{len(merges)} merges found, {len(merges) + 1} in merges.txt" in fault


def test_a_value_of_config_json_that_transformers_refuses_is_blamed_on_config_json(llm_dir: Path) -> None:
    change(llm_dir / "config.json", {"rms_norm_eps": "small"})
    fault, *_ = faults_here(llm_dir, "llm", rows_of(llm_dir))
    assert str(fault).startswith(str(llm_dir / "config.json")) and "rms_norm_eps" in fault
