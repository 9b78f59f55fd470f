"""The graft on tiny donors: what each tensor of the result is, and the files around them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.calibration_report import REPORT
from helpers.tiny_donor_files import (
    to_bytes,
    write_json,
    write_safetensors,
    write_tiny_donors,
)
from helpers.tiny_graft import SECTION, graft_job, graft_settings, read_bytes, run_graft
from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.donors.safetensors_files import read_checkpoint
from scripts.donors.tensor_values import to_float32
from scripts.graft.calibration_report import write_calibration
from scripts.graft.graft import graft
from scripts.graft.ledger import read_ledger

MERGER = [
    f"visual.merger.{name}" for name in ("ln_q.weight", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
]


def test_qwen3_takes_every_tensor_of_the_language_donor_and_of_the_tower_bit_for_bit(
    root: Path, tmp_path: Path
) -> None:
    donors = write_tiny_donors(tmp_path)
    result = read_bytes(run_graft(root, donors, tmp_path / "graft"))
    vision, language = read_bytes(donors[0]), read_bytes(donors[1])
    tower = {name: blob for name, blob in vision.items() if name.startswith("visual.") and name not in MERGER}
    assert any(name.endswith("q_norm.weight") for name in language)
    assert {name: blob for name, blob in result.items() if name not in MERGER} == language | tower
    assert set(MERGER) < result.keys()


def test_a_fresh_aligner_is_new_in_all_its_tensors(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    result, vision = read_bytes(run_graft(root, donors, tmp_path / "graft")), read_bytes(donors[0])
    assert not any(result[name] == vision[name] for name in MERGER)
    assert set(to_float32(result["visual.merger.ln_q.weight"], "BF16")) == {1}
    assert set(to_float32(result["visual.merger.mlp.0.bias"], "BF16")) == {0}
    assert set(to_float32(result["visual.merger.mlp.2.bias"], "BF16")) == {0}
    assert len(result["visual.merger.mlp.2.bias"]) == 2 * 64  # the language model's width


def test_a_kept_aligner_is_new_in_its_last_layer_alone(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    result = read_bytes(run_graft(root, donors, tmp_path / "graft", aligner="keep"))
    vision = read_bytes(donors[0])
    assert [name for name in MERGER if result[name] == vision[name]] == MERGER[:3]


def test_the_stock_architecture_has_zero_biases_and_no_norms_and_the_ledger_says_so(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft", architecture="qwen2_5_vl")
    result, language = read_bytes(graft_dir), read_bytes(donors[1])
    norms = sorted(name for name in language if "_norm.weight" in name)
    biases = sorted(name for name in result if name.endswith("_proj.bias") and "self_attn" in name)
    assert (len(norms), len(biases)) == (4, 6)
    assert not any(any(result[name]) for name in biases)
    assert {name: result[name] for name in language if name not in norms}.items() <= language.items()
    rows = [row for row in read_ledger(graft_dir / "ledger.tsv") if row.donor == "llm" and row.policy == "dropped"]
    assert sorted(row.name for row in rows) == norms
    assert {row.reason for row in rows} == {"architecture: qwen2_5_vl has no q/k norms; their effect is lost"}
    assert not list(graft_dir.glob("*.py"))


def write_refit(llm_dir: Path, path: Path, left_out: str = "") -> dict[str, np.ndarray]:
    """Random q and k in place of a fit."""
    rng = np.random.default_rng(1)
    refit = {}
    for name, tensor in read_checkpoint(llm_dir).items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            refit[name] = rng.standard_normal(tensor.shape, dtype=np.float32)
            refit[name.replace("weight", "bias")] = rng.standard_normal(tensor.shape[0], dtype=np.float32)
    refit.pop(left_out, None)
    write_safetensors(path, refit, "bfloat16")
    return refit


def test_a_refit_takes_the_place_of_q_and_k_and_of_nothing_else(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    refit = write_refit(donors[1], tmp_path / "refit.safetensors")
    verbatim = read_bytes(run_graft(root, donors, tmp_path / "verbatim", architecture="qwen2_5_vl"))
    graft_dir = tmp_path / "graft"
    job = graft_job(root, donors, graft_dir, architecture="qwen2_5_vl", calibration="affine")
    graft(replace(job, refit_path=tmp_path / "refit.safetensors"))
    result, fitted = read_bytes(graft_dir), {n: to_bytes(values, "bfloat16") for n, values in refit.items()}
    assert result == verbatim | fitted
    rows = [row for row in read_ledger(graft_dir / "ledger.tsv") if row.policy == "refitted"]
    assert {row.output_name: row.sha256 for row in rows} == {
        name: hashlib.sha256(blob).hexdigest() for name, blob in fitted.items()
    }
    replaced = [
        row.name for row in read_ledger(graft_dir / "ledger.tsv") if row.reason == "calibration: affine; refitted"
    ]
    assert sorted(replaced) == sorted(name for name in refit if name.endswith("weight"))


def test_a_refit_that_is_not_the_reported_one_is_refused(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    refit_path, report_path = tmp_path / "refit.safetensors", tmp_path / "calibration.json"
    write_refit(donors[1], refit_path)
    write_calibration(report_path, replace(REPORT, refit_sha256=sha256_of_file(refit_path)))
    job = graft_job(root, donors, tmp_path / "graft", architecture="qwen2_5_vl", calibration="affine")
    job = replace(job, refit_path=refit_path, calibration_path=report_path)
    graft(job)
    refit_path.write_bytes(refit_path.read_bytes()[:-1] + b"\x01")
    ledger = (tmp_path / "graft/ledger.tsv").read_bytes()
    with pytest.raises(UserError, match=rf"{refit_path}: sha256 \w{{64}} found, \w{{64}} expected by {report_path}"):
        graft(job)
    assert (tmp_path / "graft/ledger.tsv").read_bytes() == ledger
    report_path.write_text(report_path.read_text().replace('"num_threads": 1', '"num_threads": 2'))
    with pytest.raises(UserError, match=rf"^{report_path}: edited by hand"):
        graft(job)


def test_a_refit_that_lacks_a_tensor_or_does_not_go_with_the_settings_is_refused(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    refit_path, graft_dir = tmp_path / "refit.safetensors", tmp_path / "graft"
    write_refit(donors[1], refit_path, left_out="model.layers.1.self_attn.k_proj.bias")
    job = graft_job(root, donors, graft_dir, architecture="qwen2_5_vl", calibration="affine")
    with pytest.raises(UserError, match=r"model.layers.1.self_attn.k_proj.bias: is not in the refit; expected q and k"):
        graft(replace(job, refit_path=refit_path))
    with pytest.raises(UserError, match=r"graft.calibration: 'affine' found without --refit"):
        graft(job)
    with pytest.raises(UserError, match=r"graft.calibration: 'none' found with --refit"):
        graft(replace(job, settings=graft_settings(architecture="qwen2_5_vl"), refit_path=refit_path))
    assert [path.name for path in graft_dir.iterdir()] == ["config.json"]


@pytest.mark.parametrize("layout", ["legacy", "new"])
def test_both_layouts_of_tensor_names_give_the_published_one(root: Path, tmp_path: Path, layout: str) -> None:
    expected = read_bytes(run_graft(root, write_tiny_donors(tmp_path / "a"), tmp_path / "a/graft"))
    donors = write_tiny_donors(tmp_path / "b", layout=layout, style="nested", num_shards=1)
    assert read_bytes(run_graft(root, donors, tmp_path / "b/graft")) == expected


def test_tied_embeddings_have_no_head_on_disk(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, tied=True)
    assert "lm_head.weight" not in read_bytes(run_graft(root, donors, tmp_path / "graft"))


def test_donors_of_two_dtypes_keep_theirs_and_every_tensor_stays_aligned(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, vl={"torch_dtype": "bfloat16"}, llm={"torch_dtype": "float32"})
    graft_dir = run_graft(root, donors, tmp_path / "graft", architecture="qwen2_5_vl")
    tensors = read_checkpoint(graft_dir)
    assert {t.dtype for name, t in tensors.items() if name.startswith("visual.")} == {"BF16"}
    assert {t.dtype for name, t in tensors.items() if not name.startswith("visual.")} == {"F32"}
    assert not [t.name for t in tensors.values() if t.offset % {"BF16": 2, "F32": 4}[t.dtype]]
    assert {row.dtype for row in read_ledger(graft_dir / "ledger.tsv")} == {"BF16", "F32"}
    assert json.loads((graft_dir / "config.json").read_text())["torch_dtype"] == "float32"


def test_everything_is_readable_by_others_and_nothing_temporary_remains(root: Path, tmp_path: Path) -> None:
    graft_dir = run_graft(root, write_tiny_donors(tmp_path, num_shards=1), tmp_path / "graft")
    assert {path.stat().st_mode & 0o777 for path in graft_dir.iterdir() if path.name != "config.json"} == {0o644}
    assert sorted(path.name for path in graft_dir.iterdir()) == [
        "chat_template.jinja", "config.json", "configuration_qwen2_5_vl_qwen3.py", "generation_config.json",
        "ledger.tsv", "merges.txt", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "modeling_qwen2_5_vl_qwen3.py", "preprocessor_config.json", "settings.json",
        "tokenizer.json", "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_checkpoint_and_another_seed_another_aligner(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    runs = [read_bytes(run_graft(root, donors, tmp_path / f"graft{n}", seed=seed)) for n, seed in enumerate((5, 5, 6))]
    assert runs[0] == runs[1]
    different = [name for name in runs[0] if runs[0][name] != runs[2][name]]
    assert different == ["visual.merger.mlp.0.weight", "visual.merger.mlp.2.weight"]


def test_the_effective_settings_lie_beside_the_result(root: Path, tmp_path: Path) -> None:
    graft_dir = run_graft(root, write_tiny_donors(tmp_path), tmp_path / "graft", seed=7)
    saved = json.loads((graft_dir / "settings.json").read_text())
    assert (saved["graft"], saved["seed"]) == (SECTION, 7)


def test_a_donor_of_two_dtypes_keeps_both(root: Path, tmp_path: Path) -> None:
    """As Qwen2.5-VL-32B-Instruct, which is published as bfloat16 with a float32 vision tower."""
    donors = write_tiny_donors(tmp_path, num_shards=1)
    wide = write_tiny_donors(tmp_path / "wide", num_shards=1, dtype="float32")[0]

    def values(directory: Path, visual: bool) -> dict[str, np.ndarray]:
        arrays = {}
        for name, tensor in read_checkpoint(directory).items():
            if name.startswith("visual.") == visual:
                data = tensor.path.read_bytes()[tensor.offset :][: tensor.num_bytes]
                arrays[name] = to_float32(data, tensor.dtype).reshape(tensor.shape)
        return arrays

    # The tower of the float32 copy and the language model of the bfloat16 one, in two shards.
    parts = [(values(wide, True), "float32"), (values(donors[0], False), "bfloat16")]
    (donors[0] / "model.safetensors").unlink()
    weight_map = {}
    for number, (arrays, dtype) in enumerate(parts, start=1):
        file_name = f"model-{number:05d}-of-00002.safetensors"
        write_safetensors(donors[0] / file_name, arrays, dtype)
        weight_map |= dict.fromkeys(arrays, file_name)
    write_json(donors[0] / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})

    result = read_checkpoint(run_graft(root, donors, tmp_path / "graft"))
    assert {t.dtype for name, t in result.items() if name.startswith("visual.")} == {"F32"}
    assert {t.dtype for name, t in result.items() if not name.startswith("visual.")} == {"BF16"}
