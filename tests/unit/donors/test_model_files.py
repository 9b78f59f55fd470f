"""What identifies a model directory."""

from pathlib import Path

from helpers.trained_checkpoint import make_model
from scripts.donors.model_files import model_sha256


def test_a_models_hash_follows_its_files_but_not_what_is_said_about_it(tmp_path: Path) -> None:
    model_dir = make_model(tmp_path / "graft")
    before = model_sha256(model_dir)
    (model_dir / "ledger.tsv").write_text("something else")
    (model_dir / "settings.json").write_text("{}")
    (model_dir / "README.md").write_text("a model card")
    (model_dir / "LICENSE.vl").write_text("a donor's license")
    assert model_sha256(model_dir) == before
    (model_dir / "config.json").write_text('{"a": 1}')
    assert model_sha256(model_dir) != before
