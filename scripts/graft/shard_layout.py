"""Which tensor lies where in the files of a checkpoint that is to be written.

A donor's file whose tensors all go into the result under their own names is mirrored: the result has the very same
file, header and all, so that it can be linked, or copied as one piece. The other tensors are laid out in new files, in the
order in which they lie in their donors, so that those are read from front to back.
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.donors.safetensors_files import DTYPE_BYTES, TensorOnDisk, read_metadata, read_shard

# Where a tensor lies at the same place within a page as in its donor, the kernel copies whole pages.
_PAGE_BYTES = 4096

# Of the data's start, as readers that map a file expect; https://github.com/huggingface/safetensors#format.
_ALIGNMENT_BYTES = 8

# transformers 4 refuses files without it.
_METADATA = {"format": "pt"}


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of the result: copied from `source`, or made by `make_slabs`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: TensorOnDisk | None = None
    make_slabs: Callable[[], Iterable[bytes]] | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """One file of the checkpoint: where each of its tensors begins, counted from the start of the file.

    Its header is empty where the whole file mirrors a donor's.
    """

    file_name: str
    header: bytes
    offsets: dict[str, int]
    num_bytes: int
    mirrored_path: Path | None


def lay_out_shards(tensors: Sequence[OutputTensor], max_shard_bytes: int) -> list[Shard]:
    """Divides the tensors among files of at most `max_shard_bytes` of values (a larger tensor has its own file).

    Mirrored files come first, by donor and name, then the others in the order of their donors' files, new tensors last.
    """
    mirrored = mirrored_files(tensors, max_shard_bytes)
    rest = [tensor for tensor in tensors if not tensor.source or tensor.source.path not in mirrored]
    rest.sort(key=_place_in_donors(tensors))
    groups = list(_groups(rest, max_shard_bytes))
    num_shards = len(mirrored) + len(groups)
    names = (f"model-{number:05d}-of-{num_shards:05d}.safetensors" for number in range(1, num_shards + 1))
    shards = [
        Shard(next(names), b"", {name: t.offset for name, t in held.items()}, path.stat().st_size, path)
        for path, held in mirrored.items()
    ]
    return shards + [_lay_out_shard(next(names), group) for group in groups]


def mirrored_files(tensors: Sequence[OutputTensor], max_shard_bytes: int) -> dict[Path, dict[str, TensorOnDisk]]:
    """{donor's file: its tensors} of the files that go into the result as they are, in the order of `tensors`' donors."""
    taken: dict[Path, dict[str, TensorOnDisk]] = {}
    for tensor in tensors:
        if tensor.source:
            of_file = taken.setdefault(tensor.source.path, {})
            if tensor.name == tensor.source.name:
                of_file[tensor.name] = tensor.source
    files = {}
    for path in sorted(taken):
        held = read_shard(path)
        num_bytes = sum(tensor.num_bytes for tensor in held.values())
        if held == taken[path] and num_bytes <= max_shard_bytes and read_metadata(path).items() >= _METADATA.items():
            files[path] = held
    return files


def _place_in_donors(tensors: Sequence[OutputTensor]) -> Callable[[OutputTensor], tuple[int, str, int]]:
    """Sorts by donor (in the order of their first tensors), file and offset; tensors without a donor come last."""
    directories: dict[Path, int] = {}
    for tensor in tensors:
        if tensor.source:
            directories.setdefault(tensor.source.path.parent, len(directories))

    def place(tensor: OutputTensor) -> tuple[int, str, int]:
        if not tensor.source:
            return len(directories), "", 0
        return directories[tensor.source.path.parent], tensor.source.path.name, tensor.source.offset

    return place


def _groups(tensors: Sequence[OutputTensor], max_shard_bytes: int) -> Iterator[list[OutputTensor]]:
    """The tensors in order, as many at a time as fit."""
    group: list[OutputTensor] = []
    group_bytes = 0
    for tensor in tensors:
        if group and group_bytes + tensor.num_bytes > max_shard_bytes:
            yield group
            group, group_bytes = [], 0
        group.append(tensor)
        group_bytes += tensor.num_bytes
    if group:
        yield group


def encode_header(tensors: Sequence[OutputTensor], start_in_page: int | None = None) -> bytes:
    """What a safetensors file begins with, where the values of the tensors follow in this order.

    Spaces at its end align the values: to `start_in_page` bytes behind the begin of a page, or as the format demands.
    """
    entries: dict[str, object] = {"__metadata__": _METADATA}
    position = 0
    for tensor in tensors:
        end = position + tensor.num_bytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    data_start = 8 + len(text)
    if start_in_page is None:
        text += b" " * (-data_start % _ALIGNMENT_BYTES)
    else:
        text += b" " * ((start_in_page - data_start) % _PAGE_BYTES)
    return struct.pack("<Q", len(text)) + text


def _lay_out_shard(file_name: str, tensors: Sequence[OutputTensor]) -> Shard:
    # Wide elements first: then each tensor is aligned to its element.
    in_order = sorted(tensors, key=lambda tensor: -DTYPE_BYTES[tensor.dtype])
    offsets, position = {}, 0
    for tensor in in_order:
        offsets[tensor.name] = position
        position += tensor.num_bytes
    header = encode_header(in_order, _best_start_in_page(in_order, offsets))
    places = {name: len(header) + offset for name, offset in offsets.items()}
    return Shard(file_name, header, places, len(header) + position, None)


def _best_start_in_page(tensors: Sequence[OutputTensor], offsets: Mapping[str, int]) -> int | None:
    """Where in a page the values should begin, so that most bytes lie in a page as they do in their donor."""
    num_bytes_of_shift: Counter[int] = Counter()
    for tensor in tensors:
        if tensor.source:
            num_bytes_of_shift[(tensor.source.offset - offsets[tensor.name]) % _PAGE_BYTES] += tensor.num_bytes
    aligned = [shift for shift, _ in num_bytes_of_shift.most_common() if shift % _ALIGNMENT_BYTES == 0]
    return aligned[0] if aligned else None


def checkpoint_index(tensors: Sequence[OutputTensor], shards: Sequence[Shard]) -> dict[str, object]:
    """The content of model.safetensors.index.json, with the metadata that transformers 5 writes."""
    return {
        "metadata": {
            "total_parameters": sum(math.prod(tensor.shape) for tensor in tensors),
            "total_size": sum(tensor.num_bytes for tensor in tensors),
        },
        "weight_map": {name: shard.file_name for shard in shards for name in sorted(shard.offsets)},
    }
