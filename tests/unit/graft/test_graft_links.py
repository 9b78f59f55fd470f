"""Shards that go into the result as they are: linked where the file systems allow it, else copied to the same bytes."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import debian_packages
from helpers.small_file_system import small_file_system
from helpers.tiny_donor_files import write_json, write_safetensors, write_tiny_donors
from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.common.safetensors_files import read_checkpoint, read_shard
from scripts.common.tensor_values import to_float32
from scripts.donors.checksums import needed_files, record_files
from scripts.donors.manifest import DonorManifest, Role, write_manifest
from scripts.donors.settings import DonorSource
from scripts.graft.derive_config import derive_from_donors
from scripts.graft.file_sharing import share_file
from scripts.graft.graft import graft

SETTINGS = {"architecture": "qwen3", "aligner": "fresh", "calibration": "none", "max_shard_gb": 4, "link": "auto"}


def run_graft(root: Path, donors: tuple[Path, Path], output_dir: Path, **changes: Any) -> Path:
    """Both programs, as functions, with the donors' manifests where there are any."""
    settings = {**SETTINGS, **changes}
    write_json_atomically(output_dir / "config.json", derive_from_donors(*donors, settings))
    manifests = [path if (path := donor.with_suffix(".json")).exists() else None for donor in donors]
    code_dir = root / "model/qwen2_5_vl_qwen3"
    graft(*donors, output_dir / "config.json", settings, 0, code_dir, output_dir, *manifests)
    return output_dir


def record(*donors: Path) -> None:
    """Writes each donor's manifest beside it, as fetch_donor.py does."""
    for donor in donors:
        role: Role = "vl" if donor.name == "vl" else "llm"
        files = record_files(needed_files(donor))
        write_manifest(donor.with_suffix(".json"), DonorManifest(role, DonorSource("demo"), str(donor), files))


def shard_hashes(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.safetensors"))
    }


def links_of(directory: Path) -> list[Path]:
    """The shards that have a second name elsewhere."""
    return sorted(path for path in directory.glob("*.safetensors") if path.stat().st_nlink > 1)


@pytest.fixture
def donors(tmp_path: Path) -> tuple[Path, Path]:
    return write_tiny_donors(tmp_path / "donors")


def test_shards_of_the_language_donor_are_linked_and_their_donor_stays_as_it_was(
    root: Path, donors: tuple[Path, Path], tmp_path: Path
) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in donors[1].iterdir()}
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert before == {
        path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in donors[1].iterdir()
    }
    linked = {path.stat().st_ino for path in links_of(graft_dir)}
    assert linked >= {path.stat().st_ino for path in donors[1].glob("*.safetensors")}
    assert len(list(graft_dir.glob("*.safetensors"))) > len(linked)  # the tower beside the dropped language model


def test_a_link_and_a_copy_give_the_same_checkpoint(root: Path, donors: tuple[Path, Path], tmp_path: Path) -> None:
    linked = run_graft(root, donors, tmp_path / "linked")
    copied = run_graft(root, donors, tmp_path / "copied", link="never")
    assert links_of(linked)
    assert not links_of(copied)
    assert shard_hashes(linked) == shard_hashes(copied)
    assert (linked / "ledger.tsv").read_text() == (copied / "ledger.tsv").read_text()


def test_a_second_graft_over_linked_shards_leaves_donor_and_result_whole(
    root: Path, donors: tuple[Path, Path], tmp_path: Path
) -> None:
    expected = shard_hashes(run_graft(root, donors, tmp_path / "graft"))
    donor_hashes = shard_hashes(donors[1])
    assert shard_hashes(run_graft(root, donors, tmp_path / "graft")) == expected
    assert shard_hashes(run_graft(root, donors, tmp_path / "graft", link="never")) == expected
    assert not links_of(tmp_path / "graft")
    run_graft(root, donors, tmp_path / "graft", architecture="qwen2_5_vl")
    assert shard_hashes(donors[1]) == donor_hashes


def test_a_donor_that_is_removed_later_leaves_the_graft_whole(
    root: Path, donors: tuple[Path, Path], tmp_path: Path
) -> None:
    expected = shard_hashes(run_graft(root, donors, tmp_path / "graft"))
    shutil.rmtree(donors[1])
    assert shard_hashes(tmp_path / "graft") == expected


def test_a_shard_is_copied_without_what_is_dropped_of_it(root: Path, donors: tuple[Path, Path], tmp_path: Path) -> None:
    graft_dir = run_graft(root, donors, tmp_path / "graft", architecture="qwen2_5_vl")
    with_norms = [path for path in donors[1].glob("*.safetensors") if any("_norm" in n for n in read_shard(path))]
    assert with_norms
    linked = {path.stat().st_ino for path in links_of(graft_dir)}
    assert not linked & {path.stat().st_ino for path in with_norms}
    assert not any(name.endswith(("q_norm.weight", "k_norm.weight")) for name in read_checkpoint(graft_dir))


def test_a_shard_above_the_limit_is_divided_instead_of_linked(
    root: Path, donors: tuple[Path, Path], tmp_path: Path
) -> None:
    graft_dir = run_graft(root, donors, tmp_path / "graft", max_shard_gb=2e-5)
    assert not links_of(graft_dir)
    assert read_checkpoint(donors[1]).keys() < read_checkpoint(graft_dir).keys()


def test_a_shard_that_does_not_say_pt_is_written_anew(root: Path, donors: tuple[Path, Path], tmp_path: Path) -> None:
    path = sorted(donors[1].glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes().replace(b'{"format": "pt"}', b'{"format": "np"}'))
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert path.stat().st_nlink == 1
    assert b'"format":"np"' not in b"".join(shard.read_bytes() for shard in graft_dir.glob("*.safetensors"))


def test_a_donor_in_a_hubs_cache_is_linked_through_its_symbolic_links(
    root: Path, donors: tuple[Path, Path], tmp_path: Path
) -> None:
    blobs_dir = tmp_path / "blobs"
    blobs_dir.mkdir()
    for path in donors[1].glob("*.safetensors"):
        blob_path = path.rename(blobs_dir / hashlib.sha256(path.read_bytes()).hexdigest())
        path.symlink_to(blob_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert not any(path.is_symlink() for path in graft_dir.iterdir())
    inodes = {path.stat().st_ino for path in graft_dir.glob("*.safetensors")}
    assert {path.stat().st_ino for path in blobs_dir.iterdir()} < inodes


@pytest.fixture
def mounted_dir(tmp_path: Path) -> Iterator[Path]:
    """Another file system, in memory, where the test may mount one."""
    with small_file_system(tmp_path / "mounted", "128m") as directory:
        yield directory


def test_shards_are_copied_where_donor_and_result_are_on_two_file_systems(
    root: Path, donors: tuple[Path, Path], tmp_path: Path, mounted_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = shard_hashes(run_graft(root, donors, tmp_path / "graft"))
    capsys.readouterr()
    assert shard_hashes(run_graft(root, donors, mounted_dir / "graft")) == expected
    assert "cannot be linked here (Invalid cross-device link); they are copied" in capsys.readouterr().err


@pytest.fixture
def xfs_dir(tmp_path: Path) -> Iterator[Path]:
    """A file system that knows reflinks, in a file, where the test may mount one."""
    if os.geteuid() or not debian_packages.can_have(["mkfs.xfs"]):
        pytest.skip("a file system with reflinks can be made and mounted by root alone")
    debian_packages.install(["mkfs.xfs"], ["xfsprogs"])
    image_path, directory = tmp_path / "xfs.img", tmp_path / "xfs"
    directory.mkdir()
    with open(image_path, "wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image_path)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image_path), str(directory)], capture_output=True).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_a_file_system_with_reflinks_gives_files_of_their_own_that_take_no_space(root: Path, xfs_dir: Path) -> None:
    content = os.urandom(32 << 20)
    source_path, target_path = xfs_dir / "source", xfs_dir / "target"
    source_path.write_bytes(content)
    source_path.chmod(0o600)
    os.sync()
    free_before = os.statvfs(xfs_dir).f_bfree * os.statvfs(xfs_dir).f_frsize
    assert share_file(source_path, target_path, 0o644) is None
    assert free_before - os.statvfs(xfs_dir).f_bfree * os.statvfs(xfs_dir).f_frsize < len(content) // 10
    assert (source_path.stat().st_nlink, target_path.stat().st_nlink) == (1, 1)
    assert target_path.stat().st_mode & 0o777 == 0o644
    with open(target_path, "r+b") as file:
        file.write(b"changed")
    assert source_path.read_bytes() == content


def test_a_graft_on_a_file_system_with_reflinks_is_the_same(
    root: Path, donors: tuple[Path, Path], tmp_path: Path, xfs_dir: Path
) -> None:
    expected = shard_hashes(run_graft(root, donors, tmp_path / "graft", link="never"))
    moved = write_tiny_donors(xfs_dir / "donors")
    graft_dir = run_graft(root, moved, xfs_dir / "graft")
    assert shard_hashes(graft_dir) == expected
    assert not links_of(graft_dir)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.EIO, 0])
def test_bytes_go_through_a_buffer_where_the_kernel_does_not_copy(
    root: Path, donors: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    expected = shard_hashes(run_graft(root, donors, tmp_path / "kernel", link="never"))
    kernel_copy, calls = os.copy_file_range, []

    def copy_a_little(source: int, target: int, count: int, begin: int, end: int) -> int:
        calls.append(count)
        if len(calls) % 2:
            return kernel_copy(source, target, min(count, 100), begin, end)
        if number:
            raise OSError(number, os.strerror(number))
        return 0

    monkeypatch.setattr(os, "copy_file_range", copy_a_little)
    assert shard_hashes(run_graft(root, donors, tmp_path / "buffer", link="never")) == expected
    assert len(calls) > 2


# --- what the graft takes from the donors' manifests ---


def test_with_manifests_the_ledger_is_the_same_and_no_donor_is_read_for_it(
    root: Path, donors: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (run_graft(root, donors, tmp_path / "without") / "ledger.tsv").read_text()
    record(*donors)
    monkeypatch.setattr("scripts.donors.checksums.record_file", None)
    assert (run_graft(root, donors, tmp_path / "with") / "ledger.tsv").read_text() == expected


def test_a_donor_that_changed_after_it_was_recorded_is_refused(
    root: Path, donors: tuple[Path, Path], tmp_path: Path
) -> None:
    record(*donors)
    path = read_checkpoint(donors[1])["model.norm.weight"].path
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        UserError, match=rf"{path}: changed since {donors[1]}.json was written \(other bytes of the same"
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
    manifest = json.loads(manifest_path.read_text())
    for file in manifest["files"]:
        file.get("tensors", {}).pop("model.norm.weight", None)
    write_json(manifest_path, manifest)
    with pytest.raises(UserError, match=r"tensor model.norm.weight is not in the record of its donor"):
        run_graft(root, donors, tmp_path / "graft")
    assert [path.name for path in (tmp_path / "graft").iterdir()] == ["config.json"]


def test_a_donor_of_two_dtypes_keeps_both(root: Path, tmp_path: Path) -> None:
    """As Qwen2.5-VL-32B-Instruct, which is published as bfloat16 with a float32 vision tower."""
    donors = write_tiny_donors(tmp_path, num_shards=1)
    wide = write_tiny_donors(tmp_path / "wide", num_shards=1, dtype="float32")[0]

    def values(directory: Path, visual: bool) -> dict[str, np.ndarray]:
        arrays = {}
        for name, tensor in read_checkpoint(directory).items():
            if name.startswith("visual.") == visual:
                data = tensor.path.read_bytes()[tensor.offset :][: tensor.num_bytes]
                arrays[name] = to_float32(data, tensor.dtype).reshape(tensor.shape)
        return arrays

    # The tower of the float32 copy and the language model of the bfloat16 one, in two shards.
    parts = [(values(wide, True), "float32"), (values(donors[0], False), "bfloat16")]
    (donors[0] / "model.safetensors").unlink()
    weight_map = {}
    for number, (arrays, dtype) in enumerate(parts, start=1):
        file_name = f"model-{number:05d}-of-00002.safetensors"
        write_safetensors(donors[0] / file_name, arrays, dtype)
        weight_map |= dict.fromkeys(arrays, file_name)
    write_json(donors[0] / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})

    result = read_checkpoint(run_graft(root, donors, tmp_path / "graft"))
    assert {t.dtype for name, t in result.items() if name.startswith("visual.")} == {"F32"}
    assert {t.dtype for name, t in result.items() if not name.startswith("visual.")} == {"BF16"}
