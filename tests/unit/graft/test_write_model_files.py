"""The graft's files without its weights are those that the graft has."""

import json
from pathlib import Path

import pytest

from helpers.tiny_donor_files import write_tiny_donors
from helpers.tiny_graft import run_graft
from scripts.common.errors import UserError
from scripts.graft.travelling_files import TRAVELLING_PATTERNS
from scripts.graft.write_model_files import CONFIG_NAME, model_files, write_files


def test_the_files_are_the_grafts_and_those_of_an_earlier_run_are_gone(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    files = model_files(*donors, root / "model/qwen2_5_vl_qwen3", graft_dir / CONFIG_NAME)
    directory = tmp_path / "model_files"
    directory.mkdir()
    (directory / "added_tokens.json").write_text("{}")
    write_files(files, directory)
    expected = {path.name for pattern in (CONFIG_NAME, *TRAVELLING_PATTERNS) for path in graft_dir.glob(pattern)}
    assert {path.name for path in directory.iterdir()} == expected
    for name in expected:
        assert (directory / name).read_bytes() == (graft_dir / name).read_bytes()


def test_the_configuration_is_written_last(root: Path, tmp_path: Path) -> None:
    """Where it is, the others are: the rule's output is this file."""
    donors = write_tiny_donors(tmp_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    files = model_files(*donors, root / "model/qwen2_5_vl_qwen3", graft_dir / CONFIG_NAME)
    assert list(files)[-1] == CONFIG_NAME


def test_picture_processing_that_the_graft_would_refuse_is_refused_by_the_check_already(
    root: Path, tmp_path: Path
) -> None:
    """`snakemake check` makes these files, and no graft."""
    donors = write_tiny_donors(tmp_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    path = donors[0] / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"min_pixels": 10**9, "max_pixels": 1}))
    with pytest.raises(UserError, match=r"preprocessor_config\.json: .*min_pixels is 1000000000, above max_pixels 1"):
        model_files(*donors, root / "model/qwen2_5_vl_qwen3", graft_dir / CONFIG_NAME)
