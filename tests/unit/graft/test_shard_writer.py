"""Shards are written as a stream: by the kernel or through a buffer, with lines of progress."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.processes import wait_for
from helpers.tiny_donor_files import write_safetensors, write_tiny_donors
from helpers.tiny_graft import run_graft
from scripts.donors.safetensors_files import TensorOnDisk, read_shard
from scripts.graft import shard_writer
from scripts.graft.shard_layout import OutputTensor, lay_out_shards
from scripts.graft.shard_writer import progress_line, write_shards


@pytest.fixture
def donors(tmp_path: Path) -> tuple[Path, Path]:
    return write_tiny_donors(tmp_path / "donors")


def shard_hashes(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.safetensors"))
    }


def test_progress_says_how_much_how_fast_and_how_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_lines = 0

    def counted(*amounts: Any) -> str:
        nonlocal num_lines
        num_lines += 1
        return progress_line(*amounts)

    monkeypatch.setattr(shard_writer, "progress_line", counted)

    def held_slabs() -> Any:
        """Each is given when one more line has been printed, however fast the machine is."""
        for number in range(3):
            yield bytes(1 << 20)
            wait_for(lambda number=number: num_lines > number)
        yield bytes(17 << 20)

    tensor = OutputTensor("x", "F32", (5 << 20,), None, held_slabs)
    write_shards([tensor], lay_out_shards([tensor], 10**9), tmp_path, "graft", report_interval_s=0.02)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert all(line.startswith("graft: [") and " of 20.97 MB, " in line and line.endswith(" left") for line in lines)
    assert progress_line("graft", 3 * 10**9, 12 * 10**9, 2.0) == (
        "graft: [#######-----------------------] 3.00 GB of 12.00 GB, 1.50 GB/s, 6.0 s left"
    )


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


def test_a_new_tensor_of_several_slabs_is_written_in_their_order_and_hashed_whole(tmp_path: Path) -> None:
    slabs = [bytes([number]) * 4096 for number in range(1, 6)]
    tensors = [
        OutputTensor("a", "F32", (3,), None, lambda: [b"\xff" * 12]),
        OutputTensor("b", "F32", (5 * 1024,), None, lambda: slabs),
    ]
    digests = write_shards(tensors, lay_out_shards(tensors, 10**9), tmp_path, "graft")
    assert read_file(tmp_path / "model-00001-of-00001.safetensors") == {"a": b"\xff" * 12, "b": b"".join(slabs)}
    assert digests["b"] == hashlib.sha256(b"".join(slabs)).hexdigest()


def read_file(path: Path) -> dict[str, bytes]:
    """{name: bytes} of a safetensors file."""
    data = path.read_bytes()
    return {name: data[t.offset : t.offset + t.num_bytes] for name, t in read_shard(path).items()}


def sha256_on_disk(tensor: TensorOnDisk) -> str:
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset)
        return hashlib.sha256(file.read(tensor.num_bytes)).hexdigest()


@pytest.mark.parametrize("is_copied_by_the_kernel", [True, False])
@pytest.mark.parametrize("is_whole_file", [True, False])
def test_a_stretch_that_is_longer_than_what_is_copied_at_a_time_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_copied_by_the_kernel: bool, is_whole_file: bool
) -> None:
    num_values = (shard_writer._COPY_BYTES + (3 << 20)) // 4 + 1
    values = np.random.default_rng(0).random(num_values, dtype=np.float32)
    write_safetensors(tmp_path / "donor.safetensors", {"a": values[:1000], "b": values[1000:]}, "float32")
    donor = read_shard(tmp_path / "donor.safetensors")
    kept = donor if is_whole_file else {"b": donor["b"]}
    tensors = [OutputTensor(name, t.dtype, t.shape, t, None) for name, t in kept.items()]
    shards = lay_out_shards(tensors, 10**9)
    assert [shard.mirrored_path is not None for shard in shards] == [is_whole_file]

    def refuse(*_: int) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not is_copied_by_the_kernel:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "out").mkdir()
    write_shards(tensors, shards, tmp_path / "out", "graft")
    for name, tensor in read_shard(tmp_path / "out" / shards[0].file_name).items():
        assert sha256_on_disk(tensor) == sha256_on_disk(donor[name])
