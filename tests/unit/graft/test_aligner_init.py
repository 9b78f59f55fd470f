"""The new aligner's values: of the intended size, and the same whatever the slabs."""

import math
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_donor_files import write_tiny_donors
from helpers.tiny_graft import read_bytes, run_graft
from scripts.common.safetensors_files import read_checkpoint
from scripts.common.tensor_values import to_float32
from scripts.graft import aligner_init
from scripts.graft.aligner_init import normal_slabs

MERGER = [
    f"visual.merger.{name}" for name in ("ln_q.weight", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
]


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_new_values_do_not_depend_on_the_size_of_slabs(dtype: str) -> None:
    whole, parts = (b"".join(normal_slabs("x", 10_001, 0.1, dtype, 3, size)) for size in (1 << 20, 100))
    assert whole == parts
    values = to_float32(whole, dtype)
    assert abs(float(values.std()) - 0.1) < 0.003
    assert abs(float(values.mean())) < 0.004


@pytest.mark.parametrize("aligner", ["fresh", "keep"])
def test_picture_tokens_come_out_with_the_text_embeddings_root_mean_square(
    root: Path, tmp_path: Path, aligner: str
) -> None:
    donors = write_tiny_donors(tmp_path, dtype="float32")
    graft_dir = run_graft(root, donors, tmp_path / "graft", aligner=aligner)
    tensors, blobs = read_checkpoint(graft_dir), read_bytes(graft_dir)
    arrays = {name: to_float32(blob, "F32").reshape(tensors[name].shape) for name, blob in blobs.items()}
    merger = {name.removeprefix("visual.merger."): values for name, values in arrays.items() if name in MERGER}
    patches = np.random.default_rng(0).standard_normal((4000, 4, 32)) * 7  # 4 patches a token, of any scale
    normed = patches / np.sqrt((patches**2).mean(-1, keepdims=True)) * merger["ln_q.weight"]
    z = normed.reshape(4000, 128) @ merger["mlp.0.weight"].T + merger["mlp.0.bias"]
    gelu = z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    pictures = gelu @ merger["mlp.2.weight"].T + merger["mlp.2.bias"]
    text_rms = np.sqrt((arrays["model.embed_tokens.weight"] ** 2).mean())
    assert abs(np.sqrt((pictures**2).mean()) / text_rms - 1) < 0.1


def test_the_embeddings_rms_is_right_when_only_a_part_of_them_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aligner_init, "SLAB_BYTES", 256)
    _, llm_dir = write_tiny_donors(tmp_path, dtype="float32", llm={"vocab_size": 4000})
    embedding = read_checkpoint(llm_dir)["model.embed_tokens.weight"]
    values = to_float32(read_bytes(llm_dir)["model.embed_tokens.weight"], "F32")
    assert abs(aligner_init.embedding_rms(embedding) / np.sqrt((values**2).mean()) - 1) < 0.05
