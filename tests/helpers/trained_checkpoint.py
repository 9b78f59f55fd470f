"""Small checkpoints of a few named numbers, as input and as a trainer leaves them."""

import json
import struct
from pathlib import Path

WEIGHTS = {
    "visual.patch_embed.proj.weight": [1.0, 2.0],
    "visual.merger.mlp.2.weight": [3.0, 4.0],
    "model.embed_tokens.weight": [5.0, 6.0],
}


def write_weights(path: Path, weights: dict[str, list[float]], dtype: str = "F32") -> None:
    code = {"F32": "f", "BF16": "H"}[dtype]
    header, data = {}, b""
    for name, values in weights.items():
        packed = struct.pack(f"<{len(values)}{code}", *(values if code == "f" else map(int, values)))
        header[name] = {"dtype": dtype, "shape": [len(values)], "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def make_trained(directory: Path, weights: dict[str, list[float]]) -> Path:
    directory.mkdir(parents=True)
    write_weights(directory / "model.safetensors", weights)
    (directory / "optimizer.pt").write_bytes(b"state")
    (directory / "trainer_state.json").write_text('{"global_step": 4, "max_steps": 4, "log_history": []}')
    return directory


def make_model(directory: Path) -> Path:
    """What a stage starts from."""
    directory.mkdir()
    write_weights(directory / "model.safetensors", WEIGHTS)
    (directory / "config.json").write_text("{}")
    (directory / "ledger.tsv").write_text("about the graft")
    return directory
