"""A checkpoint directory of a few kilobytes, written by hand: enough for what reads headers, not for a model."""

import json
import struct
from pathlib import Path


def safetensors_bytes(tensors: dict[str, list[float]]) -> bytes:
    """One safetensors file of float32 vectors."""
    header, data = {}, b""
    for name, values in tensors.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + data


def write_small_checkpoint(directory: Path, value: float = 1.0, num_shards: int = 1) -> Path:
    """A Qwen3-like directory: config, tokenizer, template and weights in `num_shards` files."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "qwen3"}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    names = ["model.safetensors"]
    if num_shards > 1:
        names = [f"model-{i + 1:05d}-of-{num_shards:05d}.safetensors" for i in range(num_shards)]
        weight_map = {f"layer.{i}.weight": name for i, name in enumerate(names)}
        index = {"metadata": {"total_size": 4000 * num_shards}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    for i, name in enumerate(names):
        (directory / name).write_bytes(safetensors_bytes({f"layer.{i}.weight": [value] * 1000}))
    return directory
