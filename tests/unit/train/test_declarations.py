"""A model is what its metrics, ledger or manifest declare, or it is not used; what nothing declares is said to be so."""

import json
import os
import shutil
from pathlib import Path

import pytest

from helpers.report_inputs import make_metrics
from helpers.small_checkpoint import write_small_checkpoint
from helpers.tiny_donor_files import write_json, write_tiny_donors
from helpers.tiny_graft import run_graft
from scripts.common.errors import UserError
from scripts.common.reading import write_sealed
from scripts.donors.checksums import needed_files, record_files
from scripts.donors.manifest import DonorManifest, write_manifest
from scripts.donors.model_files import model_sha256
from scripts.donors.settings import DonorSource
from scripts.train.declarations import checked_sha256


@pytest.fixture
def checkpoint_dir(tmp_path: Path) -> Path:
    """A stage's checkpoint with the metrics beside it."""
    directory = write_small_checkpoint(tmp_path / "stage1/checkpoint", num_shards=2)
    sha256 = {"checkpoint_sha256": model_sha256(directory)}
    write_sealed(tmp_path / "stage1/metrics.json", make_metrics("stage1", num_steps=4, seed=0) | sha256)
    return directory


def flip_a_bit(path: Path) -> None:
    content, before = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before, before))


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json", "tokenizer.json"])
def test_a_checkpoint_with_one_flipped_bit_is_refused_with_both_digests(checkpoint_dir: Path, name: str) -> None:
    declared = checked_sha256(checkpoint_dir)
    assert declared == model_sha256(checkpoint_dir)
    path = checkpoint_dir / name
    if path.suffix == ".json":
        path.write_bytes(path.read_bytes() + b" ")
    else:
        flip_a_bit(path)
    with pytest.raises(UserError) as caught:
        checked_sha256(checkpoint_dir)
    metrics_path = checkpoint_dir.parent / "metrics.json"
    found = model_sha256(checkpoint_dir)
    assert str(caught.value).startswith(
        f"{checkpoint_dir}: sha256 {found} found over its files, {declared} declared by {metrics_path}; "
    )


def test_a_file_that_was_added_or_removed_is_a_change(checkpoint_dir: Path) -> None:
    (checkpoint_dir / "more.txt").write_text("")
    with pytest.raises(UserError, match=r"declared by .*metrics\.json"):
        checked_sha256(checkpoint_dir)
    (checkpoint_dir / "more.txt").unlink()
    (checkpoint_dir / "README.md").write_text("a card is no part of the model")
    checked_sha256(checkpoint_dir)
    (checkpoint_dir / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"declared by .*metrics\.json"):
        checked_sha256(checkpoint_dir)


def test_edited_metrics_declare_nothing(checkpoint_dir: Path) -> None:
    metrics_path = checkpoint_dir.parent / "metrics.json"
    metrics = json.loads(metrics_path.read_text())
    write_json(metrics_path, metrics | {"num_samples_seen": 1})
    with pytest.raises(
        UserError, match=rf"^{metrics_path}: edited by hand, or of another version: its content has sha256"
    ):
        checked_sha256(checkpoint_dir)


def test_a_graft_is_compared_with_its_ledger(root: Path, tmp_path: Path) -> None:
    graft_dir = run_graft(root, write_tiny_donors(tmp_path / "donors"), tmp_path / "graft", link="never")
    assert checked_sha256(graft_dir) == model_sha256(graft_dir)
    flip_a_bit(max(graft_dir.glob("*.safetensors")))
    with pytest.raises(UserError, match=r"with sha256 \w{64}; .*ledger\.tsv declares .* with sha256 \w{64}"):
        checked_sha256(graft_dir)


def test_a_donor_is_compared_with_its_manifest(tmp_path: Path) -> None:
    donor_dir = write_small_checkpoint(tmp_path / "donor", num_shards=1)
    manifest_path = tmp_path / "donor.json"
    records = record_files(needed_files(donor_dir))
    write_manifest(manifest_path, DonorManifest("vl", DonorSource("demo"), str(donor_dir), records))
    assert checked_sha256(donor_dir, manifest_path) == model_sha256(donor_dir)
    (donor_dir / "more.json").write_text("{}")
    with pytest.raises(UserError, match=r"more\.json: changed since .*donor\.json was written \(it is not recorded\)"):
        checked_sha256(donor_dir, manifest_path)
    (donor_dir / "more.json").unlink()
    path = next(donor_dir.glob("*.safetensors"))
    flip_a_bit(path)
    with pytest.raises(UserError, match=rf"{path}: changed since .*\(sha256 \w{{64}} found, \w{{64}} recorded\)"):
        checked_sha256(donor_dir, manifest_path)
    path.unlink()
    with pytest.raises(UserError, match=rf"{path}: changed since .*\(it is absent\)"):
        checked_sha256(donor_dir, manifest_path)


def test_a_copy_that_nothing_declares_is_used_and_that_is_said(
    checkpoint_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(checkpoint_dir, tmp_path / "copy")
    assert checked_sha256(copy) == model_sha256(checkpoint_dir)
    assert f"{copy}: nothing declares its sha256" in capsys.readouterr().err


def test_code_that_is_not_ours_is_refused_whatever_declares_it(checkpoint_dir: Path) -> None:
    write_json(checkpoint_dir / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a/b--x.T", None]}})
    with pytest.raises(UserError, match=r"tokenizer_config\.json: auto_map is"):
        checked_sha256(checkpoint_dir)
