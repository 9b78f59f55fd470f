"""The grafted model's config.json comes from the donors' published ones, and what does not fit is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_donor_files import TOKEN_IDS, edit_json, write_tiny_donors
from helpers.tiny_graft import graft_settings
from scripts.common.errors import UserError
from scripts.graft.derive_config import derive_from_donors
from scripts.graft.settings import GraftSettings

QWEN3 = graft_settings()
STOCK = graft_settings(architecture="qwen2_5_vl")


@pytest.fixture
def real_donors(root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the published configurations, for tests that change them."""
    shutil.copytree(root / "config/models", tmp_path / "configs")
    return tmp_path / "configs/Qwen2.5-VL-7B-Instruct", tmp_path / "configs/Qwen3-8B"


def refusal(donors: tuple[Path, Path], settings: GraftSettings = QWEN3) -> str:
    with pytest.raises(UserError) as caught:
        derive_from_donors(*donors, settings)
    return str(caught.value)


def test_the_published_pair_gives_qwen3s_language_model_and_qwen2_5_vls_vision_tower(
    real_donors: tuple[Path, Path],
) -> None:
    config = derive_from_donors(*real_donors, QWEN3)
    text, vision = config["text_config"], config["vision_config"]
    assert config["model_type"] == "qwen2_5_vl_qwen3"
    assert config["architectures"] == ["Qwen2_5_VLQwen3ForConditionalGeneration"]
    assert config["transformers_version"] == "4.51.0"
    assert config["auto_map"] == {
        "AutoConfig": "configuration_qwen2_5_vl_qwen3.Qwen2_5_VLQwen3Config",
        "AutoModel": "modeling_qwen2_5_vl_qwen3.Qwen2_5_VLQwen3Model",
        "AutoModelForImageTextToText": "modeling_qwen2_5_vl_qwen3.Qwen2_5_VLQwen3ForConditionalGeneration",
    }
    assert text["model_type"] == "qwen2_5_vl_qwen3_text"
    assert (text["num_hidden_layers"], text["max_position_embeddings"]) == (36, 40960)
    assert (text["hidden_size"], text["intermediate_size"], text["vocab_size"]) == (4096, 12288, 151936)
    assert (text["num_attention_heads"], text["num_key_value_heads"], text["head_dim"]) == (32, 8, 128)
    assert text["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    assert (text["rms_norm_eps"], text["attention_bias"], text["use_sliding_window"]) == (1e-6, False, False)
    assert (text["bos_token_id"], text["eos_token_id"], text["pad_token_id"]) == (151643, 151645, None)
    assert (config["tie_word_embeddings"], config["dtype"]) == (False, "bfloat16")
    assert (config["image_token_id"], config["video_token_id"]) == (151655, 151656)
    assert (config["vision_start_token_id"], config["vision_end_token_id"]) == (151652, 151653)
    assert vision["out_hidden_size"] == 4096
    assert (vision["depth"], vision["hidden_size"], vision["intermediate_size"], vision["num_heads"]) == (
        32, 1280, 3420, 16,
    )  # fmt: skip
    assert vision["fullatt_block_indexes"] == [7, 15, 23, 31]
    assert (vision["window_size"], vision["tokens_per_second"], vision["in_channels"]) == (112, 2, 3)


def test_the_stock_architecture_is_written_as_published(real_donors: tuple[Path, Path]) -> None:
    config = derive_from_donors(*real_donors, STOCK)
    assert config["model_type"] == "qwen2_5_vl"
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert (config["num_hidden_layers"], config["max_position_embeddings"]) == (36, 40960)
    assert config["rope_scaling"] == {"type": "mrope", "mrope_section": [16, 24, 24]}
    assert (config["rope_theta"], config["torch_dtype"], config["vision_config"]["out_hidden_size"]) == (
        1e6, "bfloat16", 4096,
    )  # fmt: skip
    published = json.loads((real_donors[0] / "config.json").read_text())
    unpublished = config.keys() - published.keys()
    assert config["transformers_version"] == "4.51.0"
    assert unpublished == {"pad_token_id"}, "an old reader would not know these keys"
    assert config["vision_config"] == published["vision_config"] | {"out_hidden_size": 4096}


@pytest.mark.parametrize("settings", [QWEN3, STOCK])
def test_both_styles_of_config_json_give_the_same(tmp_path: Path, settings: GraftSettings) -> None:
    flat = derive_from_donors(*write_tiny_donors(tmp_path / "flat", style="flat"), settings)
    nested = derive_from_donors(*write_tiny_donors(tmp_path / "nested", style="nested"), settings)
    for config in (flat, nested):
        config["vision_config"].pop("model_type", None)
    assert nested == flat


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 5), ("hidden_size", 128), ("intermediate_size", 99), ("num_attention_heads", 8),
        ("num_key_value_heads", 4), ("vocab_size", 1000), ("max_position_embeddings", 777), ("rms_norm_eps", 1e-5),
        ("rope_theta", 5e5), ("tie_word_embeddings", True), ("bos_token_id", 3), ("eos_token_id", [4, 5]),
        ("pad_token_id", 6), ("hidden_act", "gelu"), ("initializer_range", 0.5),
    ],
)  # fmt: skip
def test_each_number_of_the_language_model_is_the_language_donors(tmp_path: Path, key: str, value: Any) -> None:
    donors = write_tiny_donors(tmp_path)
    edit_json(donors[1] / "config.json", **{key: value})
    config = derive_from_donors(*donors, QWEN3)
    text = config["text_config"]
    assert text["rope_parameters"]["rope_theta"] == value if key == "rope_theta" else text[key] == value
    if key == "hidden_size":
        assert config["vision_config"]["out_hidden_size"] == value
    if key == "tie_word_embeddings":
        assert config[key] is True


def test_an_mrope_section_that_does_not_fit_the_head_is_refused(real_donors: tuple[Path, Path]) -> None:
    edit_json(real_donors[1] / "config.json", head_dim=64)
    message = refusal(real_donors)
    assert f"{real_donors[1] / 'config.json'}: head_dim is 64; expected 128" in message
    assert "[16, 24, 24]" in message
    assert "take a language donor with head_dim 128" in message


@pytest.mark.parametrize("section", [None, [16, 24], [16, "24", 24], [64, 0, 0]])
def test_a_vision_donor_without_three_mrope_sections_is_refused(
    real_donors: tuple[Path, Path], section: list[Any] | None
) -> None:
    edit_json(real_donors[0] / "config.json", rope_scaling={"type": "mrope", "mrope_section": section})
    assert f"mrope_section (or rope_parameters.mrope_section) is {section!r}" in refusal(real_donors)


def test_a_head_size_of_its_own_is_refused_by_the_stock_architecture_alone(real_donors: tuple[Path, Path]) -> None:
    # Qwen3-4B's hidden size: 2560 / 32 heads = 80, but head_dim 128.
    edit_json(real_donors[1] / "config.json", hidden_size=2560)
    message = refusal(real_donors, STOCK)
    assert "head_dim is 128" in message
    assert "2560 / 32" in message
    assert "set graft.architecture: qwen3" in message
    assert derive_from_donors(*real_donors, QWEN3)["text_config"]["hidden_size"] == 2560


@pytest.mark.parametrize(
    ("role", "found", "expected"), [(0, "qwen2_vl", "qwen2_5_vl"), (1, "qwen3_moe", "qwen3"), (1, None, "qwen3")]
)
def test_a_donor_of_another_model_type_is_refused(
    real_donors: tuple[Path, Path], role: int, found: str | None, expected: str
) -> None:
    edit_json(real_donors[role] / "config.json", model_type=found)
    assert f"{real_donors[role] / 'config.json'}: model_type is {found!r}; expected {expected!r}" in refusal(
        real_donors
    )


@pytest.mark.parametrize(
    ("role", "key"),
    [
        (1, "num_hidden_layers"), (1, "head_dim"), (1, "rope_theta"), (1, "max_position_embeddings"),
        (1, "rms_norm_eps"), (1, "tie_word_embeddings"), (1, "torch_dtype"), (0, "vision_config"), (0, "torch_dtype"),
    ],
)  # fmt: skip
def test_a_missing_key_is_named(real_donors: tuple[Path, Path], role: int, key: str) -> None:
    edit_json(real_donors[role] / "config.json", **{key: None})
    message = refusal(real_donors)
    assert str(real_donors[role] / "config.json") in message
    assert key in message
    assert "not found" in message
    assert "fetch this donor's config.json again" in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rms_norm_eps", 1e30, "rms_norm_eps is 1e+30; expected less than 1"),
        (
            "rope_parameters",
            {"rope_theta": 5.0, "rope_type": "default"},
            "rope_parameters.rope_theta is 5; expected one value",
        ),
    ],
)
def test_values_that_no_model_has_or_that_contradict_each_other_are_named(
    real_donors: tuple[Path, Path], key: str, value: Any, message: str
) -> None:
    edit_json(real_donors[1] / "config.json", **{key: value})
    assert message in refusal(real_donors)


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", "36"), ("hidden_size", 0), ("rope_theta", -1)])
def test_a_value_that_makes_no_sense_is_named(real_donors: tuple[Path, Path], key: str, value: Any) -> None:
    edit_json(real_donors[1] / "config.json", **{key: value})
    assert f"{key} is {value!r}; expected a positive" in refusal(real_donors)


def test_a_config_json_that_is_missing_or_cut_off_is_named(real_donors: tuple[Path, Path]) -> None:
    path = real_donors[1] / "config.json"
    path.write_text(path.read_text()[:100])
    assert f"{path}: not valid JSON" in refusal(real_donors)
    path.unlink()
    assert f"{path}: not found" in refusal(real_donors)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attention_bias": True}, "attention_bias is true; expected false"),
        ({"use_sliding_window": True}, "sliding-window layers found"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window layers found"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling of type 'yarn' found"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope scaling of type 'linear' found"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config found"),
        ({"torch_dtype": "float8_e4m3fn"}, "expected one of bfloat16, float16, float32"),
    ],
)
def test_a_language_donor_that_the_graft_would_not_reproduce_is_refused(
    real_donors: tuple[Path, Path], changes: dict[str, Any], expected: str
) -> None:
    edit_json(real_donors[1] / "config.json", **changes)
    assert expected in refusal(real_donors)


def test_a_picture_token_beyond_the_language_donors_vocabulary_is_refused(real_donors: tuple[Path, Path]) -> None:
    edit_json(real_donors[1] / "config.json", vocab_size=151650)
    assert "beyond the language donor's vocabulary of 151650" in refusal(real_donors)


def test_an_eos_id_beyond_the_vocabulary_is_refused(real_donors: tuple[Path, Path]) -> None:
    edit_json(real_donors[1] / "config.json", eos_token_id=[151645, 999999])
    assert "eos_token_id is [151645, 999999]; expected ids below the vocabulary size 151936" in refusal(real_donors)


@pytest.mark.parametrize("file_name", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"])
def test_a_picture_token_that_means_another_token_in_the_language_donor_is_refused(
    tmp_path: Path, file_name: str
) -> None:
    vl_dir, llm_dir = write_tiny_donors(tmp_path)
    kept = {"tokenizer.json": ["tokenizer.json"], "tokenizer_config.json": ["tokenizer_config.json"]}.get(file_name, [])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if name not in kept:
            (llm_dir / name).unlink()
    if file_name == "added_tokens.json":
        (llm_dir / file_name).write_text(json.dumps(TOKEN_IDS))
    path = llm_dir / file_name
    assert derive_from_donors(vl_dir, llm_dir, QWEN3)["image_token_id"] == TOKEN_IDS["<|image_pad|>"]
    path.write_text(path.read_text().replace("<|image_pad|>", "<|other|>"))
    message = refusal((vl_dir, llm_dir))
    assert f"image_token_id is {TOKEN_IDS['<|image_pad|>']}, meant as <|image_pad|>" in message
    assert f"the language donor's tokenizer in {llm_dir} does not have it" in message


def test_swapped_picture_tokens_are_refused(tmp_path: Path) -> None:
    vl_dir, llm_dir = write_tiny_donors(tmp_path)
    edit_json(vl_dir / "config.json", image_token_id=TOKEN_IDS["<|video_pad|>"])
    message = refusal((vl_dir, llm_dir))
    assert f"the vision donor's tokenizer in {vl_dir} has it as {TOKEN_IDS['<|image_pad|>']}" in message


@pytest.mark.parametrize(
    ("role", "key", "value"),
    [
        (1, "hidden_act", "glue"), (1, "hidden_act", 5), (1, "rms_norm_eps", 0), (1, "rms_norm_eps", "1e-6"),
        (1, "initializer_range", -1), (1, "attention_dropout", 1), (1, "attention_dropout", "no"), (1, "layer_types", 5),
        (1, "layer_types", False), (1, "layer_types", ["full_attention"]),
        (1, "torch_dtype", ["bfloat16"]), (1, "num_hidden_layers", 10**9), (1, "vocab_size", 2**40), (1, "hidden_size", True),
        (0, "vision_config.depth", 10**9), (0, "vision_config.num_heads", 7), (0, "vision_config.window_size", 27),
        (0, "vision_config.window_size", "112"), (0, "vision_config.hidden_act", None),
        (0, "vision_config.fullatt_block_indexes", [32]), (0, "vision_config.fullatt_block_indexes", [True]),
        (0, "vision_config.tokens_per_second", -1), (0, "vision_config.initializer_range", "x"),
        (1, "transformers_version", {"a": 1}), (0, "vision_config.fullatt_block_indexes", 7), (0, "vision_config", []),
    ],
)  # fmt: skip
def test_a_value_that_no_model_has_is_refused_by_its_key(
    real_donors: tuple[Path, Path], role: int, key: str, value: Any
) -> None:
    config = json.loads((real_donors[role] / "config.json").read_text())
    *sections, name = key.split(".")
    section = config
    for each in sections:
        section = section[each]
    section[name] = value
    (real_donors[role] / "config.json").write_text(json.dumps(config))
    message = refusal(real_donors)
    assert message.startswith(str(real_donors[role] / "config.json")) and name in message and "expected" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer.json", {"added_tokens": [1]}),
        ("tokenizer.json", {"added_tokens": [{"content": "a"}]}),
        ("tokenizer.json", {"added_tokens": [{"content": "a", "id": "1"}]}),
        ("tokenizer.json", {"added_tokens": {"a": 1}}),
        ("tokenizer.json", {"added_tokens": [{"content": "a", "id": -5}]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"one": {"content": "a"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("added_tokens.json", {"a": None}),
    ],
)
def test_added_tokens_of_another_form_are_refused(real_donors: tuple[Path, Path], name: str, value: Any) -> None:
    (real_donors[1] / name).write_text(json.dumps(value))
    assert (
        refusal(real_donors)
        == f"{real_donors[1] / name}: its added tokens are not texts with ids; fetch this file again"
    )


def test_a_refit_changes_nothing_in_the_configuration(real_donors: tuple[Path, Path]) -> None:
    refitted = graft_settings(architecture="qwen2_5_vl", calibration="affine")
    derived = [derive_from_donors(*real_donors, settings) for settings in (STOCK, refitted)]
    assert derived[0] == derived[1]
