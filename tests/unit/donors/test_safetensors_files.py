"""A header that contradicts itself, or its file, is refused before a tensor is read."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from helpers.small_checkpoint import write_small_checkpoint
from scripts.common.errors import UserError
from scripts.donors import safetensors_files
from scripts.donors.safetensors_files import INDEX_NAME, read_checkpoint, read_metadata, read_shard

TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write_shard(path: Path, header: Any, data: bytes = bytes(8)) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    return path


def test_tensors_are_found_where_the_header_says(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": TENSOR,
        "a": {"dtype": "U8", "shape": [0, 3], "data_offsets": [0, 0]},
    }
    path = write_shard(tmp_path / "a", header)
    tensors = read_shard(path)
    assert list(tensors) == ["a", "b"]
    assert (tensors["b"].num_bytes, tensors["b"].shape) == (8, (2,))
    assert tensors["b"].offset == path.stat().st_size - 8
    assert read_metadata(path) == {"format": "pt"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": ["F32"]}, r"has dtype \['F32'\]; expected one of F64"),
        ({"dtype": "F4"}, "has dtype F4; expected one of F64"),
        ({"shape": [None]}, r"has shape \[None\]; expected a list"),
        ({"shape": [-1, -2]}, r"has shape \[-1, -2\]; expected a list"),
        ({"shape": [2.0]}, r"has shape \[2.0\]; expected a list"),
        ({"shape": [True, 2]}, r"has shape \[True, 2\]; expected a list"),
        ({"shape": 2}, "has shape 2; expected a list"),
        ({"shape": [10**298] * 2000}, r"has shape \[1000+; expected a list of up to 16"),
        ({"shape": [2**63]}, "has shape .*; expected a list"),
        ({"shape": [1] * 17}, "has shape .*; expected a list of up to 16"),
        ({"shape": [3]}, r"at bytes 0–8, which does not fit its shape \[3\] of F32"),
        ({"data_offsets": [0, 8, 9]}, r"has data_offsets \[0, 8, 9\]; expected its first byte"),
        ({"data_offsets": [0]}, r"has data_offsets \[0\]; expected its first byte"),
        ({"data_offsets": ["0", "8"]}, r"has data_offsets \['0', '8'\]; expected its first byte"),
        ({"data_offsets": [0.0, 8.0]}, r"has data_offsets \[0.0, 8.0\]; expected its first byte"),
        ({"data_offsets": [-8, 0]}, r"has data_offsets \[-8, 0\]; expected its first byte"),
        ({"data_offsets": [8, 16]}, "begins at byte"),
        ({"extra": 1}, "is to have dtype, shape and data_offsets"),
    ],
)  # fmt: skip
def test_an_entry_that_describes_no_tensor_is_refused_by_its_name(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write_shard(tmp_path / "a", {"one\ntensor": TENSOR | changes})
    places = r"(the header places tensor |tensor |its header does not describe tensors \()"
    with pytest.raises(
        UserError,
        match=rf"^{path}: {places}'one\\ntensor' {reason}",
    ):
        read_shard(path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ([1], "its header is no section of tensors"),
        (b"\xef\xbb\xbf{}", r"its header is not JSON \(Unexpected UTF-8 BOM"),
        ({"__metadata__": [1]}, r"__metadata__ is \[1\]; expected texts under names"),
        ({"__metadata__": {"format": 1}}, "__metadata__ is {'format': 1}; expected texts under names"),
        ({"a": 5}, r"its header does not describe tensors \(a is to have dtype"),
        (b'{"a": ', r"its header is not JSON \("),
        (b"\xff\xff", r"its header is not JSON \("),
        (b"[" * 100_000, r"its header is not JSON \(nested more than"),
        (b'{"a": ' + b"1" * 5000 + b"}", r"its header is not JSON \(a number of 5000 digits"),
        (b'{"\\ud800": 1}', r"its header is not JSON \(half a character"),
        (b'{"a": {}, "a": {}}', r"its header is not JSON \(key 'a' found twice"),
    ],
    ids=range(11),
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: Any, reason: str) -> None:
    path = write_shard(tmp_path / "a", header)
    with pytest.raises(UserError, match=f"^{path}: .*{reason}"):
        read_shard(path)


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_files, "MAX_HEADER_BYTES", 50)
    with pytest.raises(UserError, match="a header of 60 bytes found; expected at most 50"):
        read_shard(write_shard(tmp_path / "a", b" " * 60))


@pytest.mark.parametrize("end", [bytes(7), bytes(9), b""])
def test_a_file_of_another_length_than_its_header_says_is_refused(tmp_path: Path, end: bytes) -> None:
    with pytest.raises(UserError, match=r"bytes found, \d+ expected from its header \(a truncated or padded file\)"):
        read_shard(write_shard(tmp_path / "a", {"a": TENSOR}, end))


@pytest.mark.parametrize("file_name", [["a"], None, 1, "../model.safetensors", "a/b", "", "/etc/passwd"])
def test_an_index_that_names_no_file_beside_it_is_refused(tmp_path: Path, file_name: Any) -> None:
    directory = write_small_checkpoint(tmp_path / "checkpoint", num_shards=2)
    index = json.loads((directory / INDEX_NAME).read_text())
    index["weight_map"]["layer.1.weight"] = file_name
    (directory / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"for tensor layer.1.weight; expected the name of a file beside it"):
        read_checkpoint(directory)
