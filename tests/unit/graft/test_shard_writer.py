"""Shards are written as a stream: by the kernel or through a buffer, with lines of progress."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.processes import wait_for
from helpers.tiny_donor_files import (
    write_tiny_donors,
)
from helpers.tiny_graft import run_graft
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
