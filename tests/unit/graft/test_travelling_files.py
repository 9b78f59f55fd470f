"""The files beside the weights: tokenizer, templates, picture processing."""

import json
from pathlib import Path

import pytest

from helpers.tiny_donor_files import (
    PICTURE_TEMPLATE,
    TEXT_TEMPLATE,
    TOKEN_IDS,
    write_json,
    write_tiny_donors,
)
from helpers.tiny_graft import run_graft
from scripts.common.errors import UserError
from scripts.graft.travelling_files import chat_template, processor_files, template_fault


def test_the_one_chat_template_is_the_one_that_shows_pictures(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert (graft_dir / "chat_template.jinja").read_text() == PICTURE_TEMPLATE
    config, donor_config = (json.loads((d / "tokenizer_config.json").read_text()) for d in (graft_dir, donors[1]))
    assert donor_config.pop("chat_template") == TEXT_TEMPLATE
    assert config == donor_config
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "generation_config.json"):
        assert (graft_dir / name).read_bytes() == (donors[1] / name).read_bytes()


def test_a_template_that_shows_no_pictures_is_passed_over(tmp_path: Path) -> None:
    vl_dir, _ = write_tiny_donors(tmp_path)
    (vl_dir / "chat_template.jinja").write_text(TEXT_TEMPLATE)
    assert chat_template(vl_dir).decode() == PICTURE_TEMPLATE
    (vl_dir / "chat_template.json").unlink()
    with pytest.raises(
        UserError, match=r"no chat template that shows pictures: the one in chat_template.jinja renders"
    ):
        chat_template(vl_dir)


def test_a_template_that_does_not_parse_is_a_fault_not_a_crash() -> None:
    for template in ("{% for message in messages %}", "{{ 1 / 0 }}", "{{ messages[0].absent.key }}", "{{ [].pop() }}"):
        assert "does not render" in str(template_fault(template))
    assert template_fault(PICTURE_TEMPLATE) is None


def test_picture_processing_saved_by_transformers_5_is_taken_out_of_its_one_file(tmp_path: Path) -> None:
    vl_dir, _ = write_tiny_donors(tmp_path)
    (vl_dir / "preprocessor_config.json").unlink()
    write_json(
        vl_dir / "processor_config.json",
        {"image_processor": {"patch_size": 14}, "video_processor": {"patch_size": 15}, "processor_class": "X"},
    )
    files = {name: json.loads(content) for name, content in processor_files(vl_dir).items()}
    assert files == {
        "preprocessor_config.json": {"patch_size": 14, "processor_class": "Qwen2_5_VLProcessor"},
        "video_preprocessor_config.json": {"patch_size": 15, "processor_class": "Qwen2_5_VLProcessor"},
    }
    (vl_dir / "processor_config.json").unlink()
    with pytest.raises(UserError, match="expected the vision donor's picture processing"):
        processor_files(vl_dir)


def test_a_missing_generation_config_is_made_from_the_language_donors_ids(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    (donors[1] / "generation_config.json").unlink()
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert json.loads((graft_dir / "generation_config.json").read_text()) == {
        "bos_token_id": TOKEN_IDS["<|endoftext|>"],
        "eos_token_id": TOKEN_IDS["<|im_end|>"],
    }
