"""The checksums of a donor are those of its bytes, and a touched file is not taken for a changed one."""

import hashlib
import os
from pathlib import Path

import pytest

from helpers.small_checkpoint import safetensors_bytes, write_small_checkpoint
from scripts.common.errors import UserError
from scripts.donors import checksums
from scripts.donors.checksums import change_of, needed_files, record_files, tensor_digests
from scripts.donors.manifest import DonorManifest, write_manifest
from scripts.donors.safetensors_files import read_shard
from scripts.donors.settings import DonorSource


@pytest.fixture
def checkpoint_dir(tmp_path: Path) -> Path:
    return write_small_checkpoint(tmp_path / "checkpoint", num_shards=2)


def test_each_file_and_each_tensor_has_the_sha256_of_its_bytes(
    checkpoint_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 1000)  # several blocks a tensor
    records = record_files(needed_files(checkpoint_dir))
    assert [record.name for record in records] == sorted(path.name for path in checkpoint_dir.iterdir())
    for record in records:
        content = (checkpoint_dir / record.name).read_bytes()
        assert (record.num_bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (record.tensors is not None) == record.name.endswith(".safetensors")
        for name, digest in (record.tensors or {}).items():
            tensor = read_shard(checkpoint_dir / record.name)[name]
            blob = content[tensor.offset : tensor.offset + tensor.num_bytes]
            assert digest == hashlib.sha256(blob).hexdigest()


def test_a_file_is_changed_by_its_bytes_and_not_by_its_time(checkpoint_dir: Path) -> None:
    path = checkpoint_dir / "tokenizer.json"
    (record,) = record_files([path])
    assert change_of(checkpoint_dir, record) is None
    os.utime(path, ns=(1, 1))
    assert change_of(checkpoint_dir, record) is None
    path.write_text("[]")
    found = hashlib.sha256(b"[]").hexdigest()
    assert change_of(checkpoint_dir, record) == f"sha256 {found} found, {record.sha256} recorded"
    os.utime(path, ns=(record.modified_ns, record.modified_ns))  # a small file is hashed whatever its time
    assert change_of(checkpoint_dir, record) == f"sha256 {found} found, {record.sha256} recorded"
    path.write_text("{ }")
    assert change_of(checkpoint_dir, record) == "3 bytes found, 2 recorded"
    path.unlink()
    assert change_of(checkpoint_dir, record) == "it is absent"


def test_digests_come_from_the_manifest_after_a_look_at_the_files(checkpoint_dir: Path, tmp_path: Path) -> None:
    manifest_path = tmp_path / "manifest.json"
    records = record_files(needed_files(checkpoint_dir))
    write_manifest(manifest_path, DonorManifest("llm", DonorSource("demo"), str(checkpoint_dir), records))
    assert tensor_digests(checkpoint_dir, manifest_path) == tensor_digests(checkpoint_dir, None)
    assert tensor_digests(checkpoint_dir, None).keys() == {"layer.0.weight", "layer.1.weight"}
    (checkpoint_dir / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json: changed since .*manifest\.json was written \(it is absent\)"):
        tensor_digests(checkpoint_dir, manifest_path)


def test_a_weight_of_zeros_throughout_is_refused_and_a_bias_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a download that had made room for the file first, in tensors of several blocks."""
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 1000)
    path = tmp_path / "model.safetensors"
    sound = {"a.bias": [0.0] * 900, "a.weight": [0.0] * 899 + [1.0], "b.weight": [1.0] + [0.0] * 899}
    path.write_bytes(safetensors_bytes(sound))
    record_files([path])
    path.write_bytes(safetensors_bytes({**sound, "c.weight": [0.0] * 900}))
    with pytest.raises(UserError, match=r"model\.safetensors: tensor c\.weight is zero throughout \(1 such\)"):
        record_files([path])
