"""Which tensor lies where: aligned, within the limit, each named by the index."""

import json
import math
import struct
from pathlib import Path

from helpers.tiny_donor_files import (
    write_tiny_donors,
)
from helpers.tiny_graft import run_graft
from scripts.donors.safetensors_files import read_checkpoint
from scripts.graft.shard_layout import OutputTensor, lay_out_shards


def test_tensors_of_odd_sizes_are_aligned() -> None:
    tensors = [OutputTensor("a", "BF16", (3,), None, None), OutputTensor("b", "F32", (2,), None, None)]
    (shard,) = lay_out_shards(tensors, 10**9)
    assert (shard.offsets["b"] % 4, shard.offsets["a"] % 2) == (0, 0)


def test_shards_stay_below_their_limit_and_the_index_names_every_tensor(root: Path, tmp_path: Path) -> None:
    limit_bytes = 30_000
    graft_dir = run_graft(root, write_tiny_donors(tmp_path), tmp_path / "graft", max_shard_gb=limit_bytes / 1e9)
    index = json.loads((graft_dir / "model.safetensors.index.json").read_text())
    tensors = read_checkpoint(graft_dir)
    shards = sorted(path.name for path in graft_dir.glob("*.safetensors"))
    assert len(shards) > 3
    assert shards == [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    assert index["weight_map"] == {name: tensor.path.name for name, tensor in tensors.items()}
    assert index["metadata"] == {
        "total_parameters": sum(math.prod(tensor.shape) for tensor in tensors.values()),
        "total_size": sum(tensor.num_bytes for tensor in tensors.values()),
    }
    for shard in shards:
        sizes = [tensor.num_bytes for tensor in tensors.values() if tensor.path.name == shard]
        assert len(sizes) == 1 or sum(sizes) <= limit_bytes


def test_one_shard_has_an_index_too_and_the_header_says_pt(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, num_shards=1)
    graft_dir = run_graft(root, donors, tmp_path / "graft", architecture="qwen2_5_vl")
    path = graft_dir / "model-00001-of-00001.safetensors"
    assert set(json.loads((graft_dir / "model.safetensors.index.json").read_text())["weight_map"].values()) == {
        path.name
    }
    data = path.read_bytes()
    header_bytes = struct.unpack("<Q", data[:8])[0]
    assert json.loads(data[8 : 8 + header_bytes])["__metadata__"] == {"format": "pt"}
