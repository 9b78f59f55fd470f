"""Shards that go into the result unchanged are linked where the file systems allow it, else copied to the same bytes."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.kills import killed_at_each_removal
from helpers.small_file_system import small_file_system
from helpers.tiny_donor_files import write_tiny_donors
from helpers.tiny_graft import graft_job, read_bytes, run_graft
from scripts.donors.safetensors_files import read_checkpoint, read_shard
from scripts.graft.graft import graft
from scripts.graft.ledger import read_ledger


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


@pytest.fixture
def mounted_dir(tmp_path: Path) -> Iterator[Path]:
    """Another file system, in memory, where the test may mount one."""
    with small_file_system(tmp_path / "mounted", "128m") as directory:
        yield directory


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


def test_shards_are_copied_where_donor_and_result_are_on_two_file_systems(
    root: Path, donors: tuple[Path, Path], tmp_path: Path, mounted_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = shard_hashes(run_graft(root, donors, tmp_path / "graft"))
    capsys.readouterr()
    assert shard_hashes(run_graft(root, donors, mounted_dir / "graft")) == expected
    assert "cannot be linked here (Invalid cross-device link); they are copied" in capsys.readouterr().err


def test_a_graft_on_a_file_system_with_reflinks_is_the_same(
    root: Path, donors: tuple[Path, Path], tmp_path: Path, xfs_dir: Path
) -> None:
    expected = shard_hashes(run_graft(root, donors, tmp_path / "graft", link="never"))
    moved = write_tiny_donors(xfs_dir / "donors")
    graft_dir = run_graft(root, moved, xfs_dir / "graft")
    assert shard_hashes(graft_dir) == expected
    assert not links_of(graft_dir)


def test_a_second_graft_into_the_same_directory_leaves_nothing_of_the_first(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, num_shards=1)
    graft_dir = run_graft(root, donors, tmp_path / "graft", max_shard_gb=3e-5)
    (graft_dir / "model.safetensors").write_bytes(b"of another program")
    (graft_dir / ".graft.partial").mkdir()
    (graft_dir / ".graft.partial/model-00001-of-00009.safetensors").write_bytes(b"of a killed run")
    run_graft(root, donors, graft_dir, architecture="qwen2_5_vl")
    assert [path.name for path in graft_dir.glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    assert not list(graft_dir.glob("*.py"))
    assert not (graft_dir / ".graft.partial").exists()


def test_wherever_a_graft_is_killed_what_its_index_and_its_ledger_name_is_there_whole(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    donors = write_tiny_donors(tmp_path)
    earlier = run_graft(root, donors, tmp_path / "earlier", architecture="qwen2_5_vl", max_shard_gb=3e-5)
    undisturbed = shard_hashes(run_graft(root, donors, tmp_path / "undisturbed"))
    graft_dir = tmp_path / "graft"

    def place_an_earlier_one() -> None:
        shutil.rmtree(graft_dir, ignore_errors=True)
        shutil.copytree(earlier, graft_dir)

    job = graft_job(root, donors, tmp_path / "job")
    job = replace(job, output_dir=graft_dir)
    num_with_index, num_with_ledger = 0, 0
    for num_steps in killed_at_each_removal(lambda: graft(job), place_an_earlier_one, monkeypatch):  # noqa: B007
        has_index, has_ledger = ((graft_dir / name).exists() for name in ("model.safetensors.index.json", "ledger.tsv"))
        assert has_index or not has_ledger
        # An index without its shards, or beside those of another graft, is refused here.
        blobs = read_bytes(graft_dir) if has_index else {}
        if has_ledger:
            rows = [row for row in read_ledger(graft_dir / "ledger.tsv") if row.output_name]
            assert {row.output_name: row.sha256 for row in rows} == {
                name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()
            }
        num_with_index, num_with_ledger = num_with_index + has_index, num_with_ledger + has_ledger
        run_graft(root, donors, graft_dir)
        assert shard_hashes(graft_dir) == undisturbed
        assert not (graft_dir / ".graft.partial").exists()
    assert num_steps > num_with_index > num_with_ledger > 1  # before the first removal, and after the last move
