"""What a graft takes from its donors is checked before a byte is written: config.json, manifests, a tied head."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from helpers.tiny_donor_files import (
    write_json,
    write_safetensors,
    write_tiny_donors,
)
from helpers.tiny_graft import graft_job, graft_settings, read_bytes, run_graft
from scripts.common.errors import UserError
from scripts.donors.checksums import needed_files, record_files
from scripts.donors.manifest import DonorManifest, Role, read_manifest, write_manifest
from scripts.donors.safetensors_files import read_checkpoint
from scripts.donors.settings import DonorSource
from scripts.donors.tensor_values import to_float32
from scripts.graft.derive_config import derive_from_donors
from scripts.graft.graft import graft
from scripts.graft.ledger import read_ledger


def test_a_config_json_that_was_changed_by_hand_is_refused(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    job = graft_job(root, donors, tmp_path / "graft")
    config = derive_from_donors(*donors, graft_settings())
    config["text_config"]["num_hidden_layers"] = 1
    write_json(job.config_path, config)
    with pytest.raises(UserError, match=r"config.json: text_config.num_hidden_layers is 1; .* imply 2; delete"):
        graft(job)


def test_a_config_json_with_a_key_too_many_or_too_few_is_refused(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    job = graft_job(root, donors, tmp_path / "graft")
    config = derive_from_donors(*donors, graft_settings())
    write_json(job.config_path, config | {"attn_factor": 2})
    with pytest.raises(UserError, match="attn_factor is 2; the donors and settings imply None"):
        graft(job)
    del config["text_config"]["head_dim"]
    write_json(job.config_path, config)
    with pytest.raises(UserError, match=r"text_config\.head_dim is None; the donors and settings imply 16"):
        graft(job)


def add_head(llm_dir: Path, difference: float) -> None:
    """Saves a tied donor's head beside its embedding, as some savers do."""
    embedding = read_checkpoint(llm_dir)["model.embed_tokens.weight"]
    values = to_float32(read_bytes(llm_dir)["model.embed_tokens.weight"], embedding.dtype).reshape(embedding.shape)
    write_safetensors(llm_dir / "model-00004-of-00004.safetensors", {"lm_head.weight": values + difference}, "bfloat16")
    index = json.loads((llm_dir / "model.safetensors.index.json").read_text())
    index["weight_map"]["lm_head.weight"] = "model-00004-of-00004.safetensors"
    write_json(llm_dir / "model.safetensors.index.json", index)


def test_a_tied_head_that_was_saved_all_the_same_is_dropped(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, tied=True)
    add_head(donors[1], difference=0)
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert "lm_head.weight" not in read_bytes(graft_dir)
    (row,) = [
        row for row in read_ledger(graft_dir / "ledger.tsv") if row.name == "lm_head.weight" and row.donor == "llm"
    ]
    assert row.policy == "dropped"


def test_a_tied_head_that_differs_from_the_embedding_is_refused(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, tied=True)
    add_head(donors[1], difference=0.5)
    with pytest.raises(UserError, match=r"tensor lm_head.weight differs from model.embed_tokens.weight"):
        run_graft(root, donors, tmp_path / "graft")
    assert [path.name for path in (tmp_path / "graft").iterdir()] == ["config.json"]


@pytest.fixture
def donors(tmp_path: Path) -> tuple[Path, Path]:
    return write_tiny_donors(tmp_path / "donors")


def record(*donors: Path) -> None:
    """Writes each donor's manifest beside it, as fetch_donor.py does."""
    for donor in donors:
        role: Role = "vl" if donor.name == "vl" else "llm"
        files = record_files(needed_files(donor))
        write_manifest(donor.with_suffix(".json"), DonorManifest(role, DonorSource("demo"), str(donor), files))


def test_with_manifests_the_ledger_is_the_same_and_no_donor_is_read_for_it(
    root: Path, donors: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (run_graft(root, donors, tmp_path / "without") / "ledger.tsv").read_text()
    record(*donors)
    monkeypatch.setattr("scripts.donors.checksums.record_file", None)
    assert (run_graft(root, donors, tmp_path / "with") / "ledger.tsv").read_text() == expected


@pytest.mark.parametrize("link", ["auto", "never"])
def test_the_ledgers_checksums_which_are_the_manifests_are_those_of_the_bytes_in_the_result(
    root: Path, donors: tuple[Path, Path], tmp_path: Path, link: str
) -> None:
    record(*donors)
    graft_dir = run_graft(root, donors, tmp_path / "graft", link=link)
    stated = {row.output_name: row.sha256 for row in read_ledger(graft_dir / "ledger.tsv") if row.output_name}
    assert stated == {name: hashlib.sha256(blob).hexdigest() for name, blob in read_bytes(graft_dir).items()}


def test_a_donor_that_changed_after_it_was_recorded_is_refused(
    root: Path, donors: tuple[Path, Path], tmp_path: Path
) -> None:
    record(*donors)
    path = read_checkpoint(donors[1])["model.norm.weight"].path
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        UserError, match=rf"{path}: changed since {donors[1]}.json was written \(sha256 \w{{64}} found, \w{{64}} rec"
    ):
        run_graft(root, donors, tmp_path / "graft")
    assert [path.name for path in (tmp_path / "graft").iterdir()] == ["config.json"]
    path.unlink()
    with pytest.raises(UserError, match=r"not found, though model.safetensors.index.json names it"):
        run_graft(root, donors, tmp_path / "graft")


def test_a_file_of_a_donor_that_vanished_is_refused(root: Path, donors: tuple[Path, Path], tmp_path: Path) -> None:
    record(*donors)
    (donors[1] / "vocab.json").unlink()
    with pytest.raises(UserError, match=r"vocab.json: changed since .*llm.json was written \(it is absent\)"):
        run_graft(root, donors, tmp_path / "graft")


def test_a_donor_that_was_only_touched_is_as_good_as_before(
    root: Path, donors: tuple[Path, Path], tmp_path: Path
) -> None:
    expected = (run_graft(root, donors, tmp_path / "before") / "ledger.tsv").read_text()
    record(*donors)
    for path in donors[1].iterdir():
        os.utime(path)
    assert (run_graft(root, donors, tmp_path / "after") / "ledger.tsv").read_text() == expected


def test_a_manifest_that_lacks_a_tensor_is_refused(root: Path, donors: tuple[Path, Path], tmp_path: Path) -> None:
    record(*donors)
    manifest_path = donors[1].with_suffix(".json")
    manifest = read_manifest(manifest_path)
    for file in manifest.files:
        (file.tensors or {}).pop("model.norm.weight", None)
    write_manifest(manifest_path, manifest)
    with pytest.raises(UserError, match=r"tensor model.norm.weight is not in the manifest of its donor"):
        run_graft(root, donors, tmp_path / "graft")
    assert [path.name for path in (tmp_path / "graft").iterdir()] == ["config.json"]
