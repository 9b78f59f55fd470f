"""What a model directory may name of code: our own two files, and nothing else; a token of that name is no code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_donor_files import write_json, write_tiny_donors
from helpers.tiny_graft import run_graft
from scripts.common.errors import UserError
from scripts.graft.own_code import (
    AUTO_MAP,
    CODE_DIR,
    CODE_FILES,
    code_named_in,
    is_trusted,
    require_own_code,
    without_code,
)

REMOTE = "somebody/else--tokenization_x.Tokenizer"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    write_json(directory / "config.json", {"model_type": "qwen2_5_vl_qwen3", "auto_map": AUTO_MAP})
    write_json(directory / "vocab.json", {"auto_map": 7, "custom_pipelines": 8})
    for name in CODE_FILES:
        shutil.copy(CODE_DIR / name, directory)
    return directory


@pytest.mark.parametrize(
    ("value", "keys", "rest"),
    [
        ({"auto_map": {"AutoTokenizer": [REMOTE, None]}, "a": 1}, ["auto_map"], {"a": 1}),
        ({"auto_map": [None, REMOTE]}, ["auto_map"], {}),
        ({"auto_map": REMOTE}, ["auto_map"], {}),
        ({"image_processor": {"auto_map": {"A": REMOTE}, "b": 2}}, ["image_processor.auto_map"], {"image_processor": {"b": 2}}),
        ({"parts": [{"auto_map": REMOTE}, 3]}, ["parts.auto_map"], {"parts": [{}, 3]}),
        ({"custom_pipelines": {"x": {"impl": "x.P"}}}, ["custom_pipelines"], {}),
        ({"attn_implementation": "somebody/kernel"}, ["attn_implementation"], {}),
        ({"t": {"_attn_implementation": {"": "somebody/kernel@v1:f"}}}, ["t._attn_implementation"], {"t": {}}),
        ({"attn_implementation": "flash_attention_2"}, [], {"attn_implementation": "flash_attention_2"}),
        ({"vocab": {"auto_map": 5}, "auto_map": {}}, [], {"vocab": {"auto_map": 5}, "auto_map": {}}),
        (["auto_map"], [], ["auto_map"]),
    ],
)  # fmt: skip
def test_keys_that_name_code_are_found_at_any_depth_and_left_out(value: Any, keys: list[str], rest: Any) -> None:
    assert [key for key, _ in code_named_in(value)] == keys
    assert without_code(value) == rest


def test_our_own_code_is_trusted_and_a_directory_without_code_is_not(model_dir: Path) -> None:
    require_own_code(model_dir)
    assert is_trusted(model_dir)
    write_json(model_dir / "config.json", {"model_type": "qwen2_5_vl"})
    require_own_code(model_dir)
    assert not is_trusted(model_dir)


def edited(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda directory: write_json(directory / name, values)


def appended(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        *(
            (edited(name, auto_map={"Auto": REMOTE}), rf"{name}: auto_map is .*somebody/else")
            for name in (
                "config.json", "tokenizer_config.json", "preprocessor_config.json", "video_preprocessor_config.json",
                "processor_config.json", "generation_config.json", "special_tokens_map.json", "anything.json",
            )
        ),
        (edited("config.json", auto_map={**AUTO_MAP, "AutoProcessor": "processing_x.P"}), r"config\.json: auto_map is"),
        (edited("config.json", text_config={"auto_map": AUTO_MAP}), r"config\.json: text_config\.auto_map is"),
        (edited("processor_config.json", video_processor={"auto_map": {"A": "x.V"}}), r"video_processor\.auto_map is"),
        (edited("config.json", attn_implementation="somebody/kernel"), r"config\.json: attn_implementation is"),
        (edited("args.json", external_plugins=["x.py"]), r"args\.json: found, and ms-swift takes plugins"),
        (edited("adapter_config.json", base_model_name_or_path="x"), r"adapter_config\.json: found, and"),
        (lambda directory: (directory / "custom_generate").mkdir(), r"custom_generate: found, and transformers runs"),
        *((appended(name), rf"{name}: sha256 \w{{64}} found; expected sha256 \w{{64}}") for name in CODE_FILES),
        *((lambda d, name=name: (d / name).unlink(), rf"{name}: nothing found; expected sha256") for name in CODE_FILES),
    ],
)  # fmt: skip
def test_other_code_is_refused_with_its_place(model_dir: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(model_dir)
    with pytest.raises(UserError, match=message):
        require_own_code(model_dir)


def test_without_trust_a_class_may_be_named_but_nothing_that_is_read_by_its_name(model_dir: Path) -> None:
    write_json(model_dir / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": [REMOTE, None]}})
    require_own_code(model_dir, with_trust=False)
    write_json(model_dir / "adapter_config.json", {})
    with pytest.raises(UserError, match=r"adapter_config\.json: found"):
        require_own_code(model_dir, with_trust=False)


def test_no_code_of_a_donor_travels_into_the_graft(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    donors = write_tiny_donors(tmp_path)
    clean = run_graft(root, donors, tmp_path / "clean")
    names = ("config", "tokenizer_config", "preprocessor_config", "generation_config", "tokenizer", "vocab")
    for donor in donors:
        for path in [donor / f"{name}.json" for name in names if (donor / f"{name}.json").exists()]:
            values = json.loads(path.read_text())
            if path.name == "config.json" and "vision_config" in values:
                values["vision_config"] |= {"auto_map": {"A": REMOTE}, "attn_implementation": "somebody/kernel"}
            write_json(path, values | {"auto_map": {"A": REMOTE}, "attn_implementation": "somebody/kernel"})
        for name in ("tokenization_x.py", "args.json", "adapter_config.json", "pytorch_model.bin"):
            (donor / name).write_text("{}")
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    require_own_code(graft_dir)
    assert sorted(path.name for path in graft_dir.iterdir()) == sorted(path.name for path in clean.iterdir())
    # Where a file of a donor named code, its layout is another one, and so its sum in settings.json.
    for path in set(clean.glob("*.json")) - {clean / "settings.json"}:
        assert json.loads((graft_dir / path.name).read_text()) == json.loads(path.read_text()), path.name
    assert f"graft: {donors[1] / 'tokenizer_config.json'}: auto_map names code" in capsys.readouterr().err
