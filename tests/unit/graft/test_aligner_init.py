"""The new aligner's values: of the intended size, and the same whatever the slabs."""

import math
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_donor_files import write_safetensors, write_tiny_donors, write_weights
from helpers.tiny_graft import read_bytes, run_graft
from scripts.donors.safetensors_files import read_checkpoint, read_shard
from scripts.donors.tensor_values import to_float32
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


def test_each_new_tensor_has_numbers_of_its_own() -> None:
    one, other = (b"".join(normal_slabs(name, 1000, 1.0, "F32", 3, 1 << 20)) for name in ("x", "y"))
    assert abs(np.corrcoef(to_float32(one, "F32"), to_float32(other, "F32"))[0, 1]) < 0.2


def test_the_moment_of_a_kept_layer_is_that_of_what_goes_through_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gains, weight = rng.uniform(0.2, 3, 8).astype(np.float32), rng.standard_normal((24, 32), dtype=np.float32) / 4
    bias = rng.standard_normal(24, dtype=np.float32)
    write_safetensors(tmp_path / "m.safetensors", {"gains": gains, "weight": weight, "bias": bias}, "float32")
    tensors = read_shard(tmp_path / "m.safetensors")
    z = rng.standard_normal((100_000, 32), dtype=np.float32) * np.tile(gains, 4) @ weight.T + bias
    gelu = z * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float32])(z / math.sqrt(2)))
    found = aligner_init.kept_input_moment(tensors["gains"], tensors["weight"], tensors["bias"])
    assert abs(found / (gelu**2).mean(0).sum() - 1) < 0.01


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (0.7, 0.25), (-1.5, 4.0)])
def test_gelus_second_moment_is_that_of_the_exact_gelu(mean: float, variance: float) -> None:
    z = np.linspace(mean - 12 * variance**0.5, mean + 12 * variance**0.5, 100_001)
    density = np.exp(-((z - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    gelu = z * 0.5 * (1 + np.array([math.erf(value / math.sqrt(2)) for value in z]))
    expected = np.sum(gelu**2 * density) * (z[1] - z[0])
    found = aligner_init.gelu_second_moment(np.array([mean], np.float32), np.array([variance], np.float32))
    assert abs(found[0] / expected - 1) < 1e-5


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


def test_the_aligners_scale_follows_the_language_donors_embeddings(root: Path, tmp_path: Path) -> None:
    """Both donors have embeddings; picture tokens stand among those of the one whose language model goes on."""
    donors = write_tiny_donors(tmp_path, dtype="float32", num_shards=1)
    name, stds = "visual.merger.mlp.2.weight", []
    for factor in (1, 5):
        tensors = read_checkpoint(donors[1])
        arrays = {n: to_float32(b, "F32").reshape(tensors[n].shape) for n, b in read_bytes(donors[1]).items()}
        arrays["model.embed_tokens.weight"] = arrays["model.embed_tokens.weight"] * factor
        write_weights(donors[1], arrays, "float32", 1)
        graft_dir = run_graft(root, donors, tmp_path / f"graft{factor}")
        stds.append(float(to_float32(read_bytes(graft_dir)[name], "F32").std()))
    assert abs(stds[1] / stds[0] - 5) < 0.01


def test_the_embeddings_rms_is_right_when_only_a_part_of_them_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aligner_init, "SLAB_BYTES", 256)
    _, llm_dir = write_tiny_donors(tmp_path, dtype="float32", llm={"vocab_size": 4000})
    embedding = read_checkpoint(llm_dir)["model.embed_tokens.weight"]
    values = to_float32(read_bytes(llm_dir)["model.embed_tokens.weight"], "F32")
    assert abs(aligner_init.embedding_rms(embedding) / np.sqrt((values**2).mean()) - 1) < 0.05
