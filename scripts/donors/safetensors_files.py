"""Reading safetensors checkpoints by their headers alone: no tensor is materialised.

The format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets: [begin, end]}} and the tensors' bytes. Several shards are joined by
`model.safetensors.index.json` {metadata: {total_size}, weight_map: {name: file}}.
"""

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.input_files import file_fault, read_section, require_file
from scripts.common.json_text import json_value

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
SHARD_PATTERN = "model-[0-9]*-of-[0-9]*.safetensors"

# What safetensors itself reads at most (safetensors/src/tensor.rs: MAX_HEADER_SIZE).
MAX_HEADER_BYTES = 100_000_000

# More than any tensor has; the product of absurd ones would take hours.
MAX_NUM_DIMENSIONS = 16
MAX_COUNT = 2**63 - 1

_REMEDY = "fetch or make this file again"

# Bytes per element of each dtype that the format defines.
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorOnDisk:
    """Where one tensor lies: `num_bytes` from `offset` on (counted from the start of the file `path`)."""

    name: str
    path: Path
    offset: int
    num_bytes: int
    dtype: str
    shape: tuple[int, ...]


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of a safetensors file, where the data begins, and the size of the file."""
    require_file(path, "a safetensors file", _REMEDY)
    try:
        file_bytes = path.stat().st_size
        with open(path, "rb") as file:
            prefix = file.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
            if header_bytes is None or 8 + header_bytes > file_bytes:
                raise UserError(f"{path}: cut off inside its header ({file_bytes} bytes in the file); {_REMEDY}")
            if header_bytes > MAX_HEADER_BYTES:
                raise UserError(
                    f"{path}: a header of {header_bytes} bytes found; expected at most {MAX_HEADER_BYTES}; {_REMEDY}"
                )
            content = file.read(header_bytes)
            header = json_value(content.decode())  # no byte order mark, as safetensors itself
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions, or {_REMEDY}") from None
    except ValueError as error:
        raise UserError(f"{path}: its header is not JSON ({error}), so it is no safetensors file; {_REMEDY}") from None
    if not isinstance(header, dict):
        raise UserError(f"{path}: its header is no section of tensors, so it is no safetensors file; {_REMEDY}")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UserError(f"{path}: __metadata__ is {metadata!s:.100}; expected texts under names; {_REMEDY}")
    return header, 8 + header_bytes, file_bytes


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors, such as {"format": "pt"}."""
    return dict(_read_header(path)[0].get("__metadata__", {}))


def _plain(name: str) -> str:
    """A tensor's name for a message; one with a line feed or the like in quotes, so that it stays within its line."""
    return name if name.isprintable() else repr(name)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _tensor_from(path: Path, name: str, entry: Any, data_start: int) -> TensorOnDisk:
    """One tensor of a header; raises UserError where the header does not describe it, or contradicts itself."""
    where = f"{path}: tensor {_plain(name)}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise UserError(
            f"{path}: its header does not describe tensors ({_plain(name)} is to have dtype, shape and data_offsets), so it is "
            f"no safetensors file; {_REMEDY}"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise UserError(f"{where} has dtype {dtype}; expected one of {', '.join(DTYPE_BYTES)}; {_REMEDY}")
    if not isinstance(shape, list) or len(shape) > MAX_NUM_DIMENSIONS or not all(map(_is_count, shape)):
        raise UserError(
            f"{where} has shape {shape!s:.100}; expected a list of up to {MAX_NUM_DIMENSIONS} whole numbers from 0 on; {_REMEDY}"
        )
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise UserError(
            f"{where} has data_offsets {offsets}; expected its first byte and the one after its last; {_REMEDY}"
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise UserError(
            f"{path}: the header places tensor {_plain(name)} at bytes {begin}–{end}, which does not fit its shape {shape} of "
            f"{dtype}; {_REMEDY}"
        )
    return TensorOnDisk(name, path, data_start + begin, end - begin, dtype, tuple(shape))


def read_shard(path: Path) -> dict[str, TensorOnDisk]:
    """The tensors of one safetensors file, in the order of their bytes.

    Raises UserError when the file is absent, cut off, or its header contradicts itself.
    """
    header, data_start, file_bytes = _read_header(path)
    tensors = [_tensor_from(path, name, entry, data_start) for name, entry in header.items() if name != "__metadata__"]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.num_bytes))
    position = data_start
    for tensor in tensors:
        if tensor.offset != position:
            raise UserError(
                f"{path}: tensor {_plain(tensor.name)} begins at byte {tensor.offset}; expected {position}, where the one before "
                f"it ends; {_REMEDY}"
            )
        position += tensor.num_bytes
    if position != file_bytes:
        raise UserError(
            f"{path}: {file_bytes} bytes found, {position} expected from its header (a truncated or padded file); {_REMEDY}"
        )
    return {tensor.name: tensor for tensor in tensors}


def weight_map_of(index_path: Path) -> dict[str, str]:
    """{tensor: file} of an index; raises UserError where it has none, or names a file outside the directory."""
    weight_map = read_section(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index_path}: no weight_map found; {_REMEDY}")
    for name, file_name in weight_map.items():
        if not isinstance(file_name, str) or file_name in ("", "..") or Path(file_name).name != file_name:
            raise UserError(
                f"{index_path}: weight_map has {file_name!r} for tensor {_plain(name)}; expected the name of a file beside it; "
                f"{_REMEDY}"
            )
    return weight_map


def read_checkpoint(directory: Path) -> dict[str, TensorOnDisk]:
    """All tensors of a checkpoint directory, shard by shard.

    Raises UserError when there are no weights, a shard is missing or broken, the index names a tensor that its shard
    does not hold, or a shard holds a tensor that the index does not name.
    """
    index_path = directory / INDEX_NAME
    if not os.path.lexists(index_path):
        single_path = directory / SINGLE_NAME
        if not os.path.lexists(single_path):
            raise UserError(
                f"{directory}: neither {INDEX_NAME} nor {SINGLE_NAME} found; expected the weights of a "
                "checkpoint in safetensors format; check the path, or fetch the checkpoint again"
            )
        return read_shard(single_path)

    weight_map = weight_map_of(index_path)
    shard_names = {path.name for path in directory.glob(SHARD_PATTERN)}
    if unnamed := sorted(shard_names - set(weight_map.values())):
        raise UserError(
            f"{directory / unnamed[0]}: a shard that {INDEX_NAME} does not name ({len(unnamed)} such); fetch the index "
            "again, or remove this file if it belongs to another checkpoint"
        )
    tensors: dict[str, TensorOnDisk] = {}
    for shard_name in sorted(set(weight_map.values())):
        if fault := file_fault(directory / shard_name):
            raise UserError(f"{directory / shard_name}: {fault}, though {INDEX_NAME} names it; fetch this shard again")
        shard = read_shard(directory / shard_name)
        indexed = {name for name, file_name in weight_map.items() if file_name == shard_name}
        if absent := sorted(indexed - shard.keys()):
            raise UserError(
                f"{index_path}: names tensor {_plain(absent[0])} in {shard_name}, which does not hold it "
                f"({len(absent)} such); fetch the index and this shard again"
            )
        if extra := sorted(shard.keys() - indexed):
            raise UserError(
                f"{directory / shard_name}: holds tensor {_plain(extra[0])}, which {INDEX_NAME} does not place there "
                f"({len(extra)} such); fetch the index and this shard again"
            )
        tensors |= shard
    return tensors
