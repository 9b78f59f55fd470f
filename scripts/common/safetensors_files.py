"""Reading safetensors checkpoints by their headers alone: no tensor is materialised.

The format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets: [begin, end]}} and the tensors' bytes. Several shards are joined by
`model.safetensors.index.json` {metadata: {total_size}, weight_map: {name: file}}.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
SHARD_PATTERN = "model-[0-9]*-of-[0-9]*.safetensors"

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
    remedy = "fetch or make this file again"
    try:
        file_bytes = path.stat().st_size
        with open(path, "rb") as file:
            prefix = file.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
            if header_bytes is None or 8 + header_bytes > file_bytes:
                raise UserError(f"{path}: cut off inside its header ({file_bytes} bytes in the file); {remedy}")
            return json.loads(file.read(header_bytes)), 8 + header_bytes, file_bytes
    except FileNotFoundError:
        raise UserError(f"{path}: not found; expected a safetensors file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions, or {remedy}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path}: its header is not JSON, so it is no safetensors file; {remedy}") from None


def read_metadata(path: Path) -> dict[str, str]:
    """What the header of a safetensors file says beside its tensors, such as {"format": "pt"}."""
    return _read_header(path)[0].get("__metadata__") or {}


def read_shard(path: Path) -> dict[str, TensorOnDisk]:
    """The tensors of one safetensors file, in the order of their bytes.

    Raises UserError when the file is absent, cut off, or its header contradicts itself.
    """
    remedy = "fetch or make this file again"
    header, data_start, file_bytes = _read_header(path)
    try:
        entries = [
            (*entry["data_offsets"], name, entry["dtype"], tuple(entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        ]
        entries.sort(key=lambda entry: entry[:2])
    except (AttributeError, KeyError, TypeError):
        raise UserError(
            f"{path}: its header does not describe tensors, so it is no safetensors file; {remedy}"
        ) from None

    tensors, position = {}, 0
    for begin, end, name, dtype, shape in entries:
        if dtype not in DTYPE_BYTES:
            raise UserError(f"{path}: tensor {name} has dtype {dtype}, expected one of {', '.join(DTYPE_BYTES)}")
        if begin != position or end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
            raise UserError(
                f"{path}: the header places tensor {name} at bytes {begin}–{end}, which does not fit its shape "
                f"{list(shape)} of {dtype} or its neighbours; {remedy}"
            )
        tensors[name] = TensorOnDisk(name, path, data_start + begin, end - begin, dtype, shape)
        position = end
    if data_start + position != file_bytes:
        raise UserError(
            f"{path}: {file_bytes} bytes found, {data_start + position} expected from its header "
            f"(a truncated or padded file); {remedy}"
        )
    return tensors


def read_checkpoint(directory: Path) -> dict[str, TensorOnDisk]:
    """All tensors of a checkpoint directory, shard by shard.

    Raises UserError when there are no weights, a shard is missing or broken, the index names a tensor that its shard
    does not hold, or a shard holds a tensor that the index does not name.
    """
    index_path = directory / INDEX_NAME
    if not index_path.exists():
        single_path = directory / SINGLE_NAME
        if not single_path.exists():
            raise UserError(
                f"{directory}: neither {INDEX_NAME} nor {SINGLE_NAME} found; expected the weights of a "
                "checkpoint in safetensors format; check the path, or fetch the checkpoint again"
            )
        return read_shard(single_path)

    index = read_json(index_path)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index_path}: no weight_map found; fetch or make this file again")
    shard_names = {path.name for path in directory.glob(SHARD_PATTERN)}
    if unnamed := sorted(shard_names - set(weight_map.values())):
        raise UserError(
            f"{directory / unnamed[0]}: a shard that {INDEX_NAME} does not name ({len(unnamed)} such); fetch the index "
            "again, or remove this file if it belongs to another checkpoint"
        )
    tensors: dict[str, TensorOnDisk] = {}
    for shard_name in sorted(set(weight_map.values())):
        if not (directory / shard_name).exists():
            raise UserError(
                f"{directory / shard_name}: not found, though {INDEX_NAME} names it; fetch this shard again"
            )
        shard = read_shard(directory / shard_name)
        indexed = {name for name, file_name in weight_map.items() if file_name == shard_name}
        if absent := sorted(indexed - shard.keys()):
            raise UserError(
                f"{index_path}: names tensor {absent[0]} in {shard_name}, which does not hold it "
                f"({len(absent)} such); fetch the index and this shard again"
            )
        if extra := sorted(shard.keys() - indexed):
            raise UserError(
                f"{directory / shard_name}: holds tensor {extra[0]}, which {INDEX_NAME} does not place there "
                f"({len(extra)} such); fetch the index and this shard again"
            )
        tensors |= shard
    return tensors
