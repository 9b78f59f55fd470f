"""The graft on tiny donors: what each tensor of the result is, and the files around them."""

import csv
import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.processes import wait_for
from helpers.tiny_donor_files import (
    PICTURE_TEMPLATE,
    TEXT_TEMPLATE,
    TOKEN_IDS,
    to_bytes,
    write_json,
    write_safetensors,
    write_tiny_donors,
)
from scripts.common.errors import UserError
from scripts.common.files import write_json_atomically
from scripts.common.safetensors_files import read_checkpoint
from scripts.common.tensor_values import first_non_finite, from_float32, to_float32
from scripts.graft import aligner_init
from scripts.graft import shard_writer as safetensors_writer
from scripts.graft.aligner_init import normal_slabs
from scripts.graft.derive_config import derive_from_donors
from scripts.graft.graft import graft
from scripts.graft.shard_layout import OutputTensor, lay_out_shards
from scripts.graft.shard_writer import progress_line, write_shards
from scripts.graft.travelling_files import chat_template, processor_files, template_fault

SETTINGS = {"architecture": "qwen3", "aligner": "fresh", "calibration": "none", "max_shard_gb": 4, "link": "auto"}

MERGER = [
    f"visual.merger.{name}" for name in ("ln_q.weight", "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
]


def run_graft(root: Path, donors: tuple[Path, Path], output_dir: Path, seed: int = 0, **changes: Any) -> Path:
    """Both programs, as functions, one after the other."""
    settings = {**SETTINGS, **changes}
    write_json_atomically(output_dir / "config.json", derive_from_donors(*donors, settings))
    graft(*donors, output_dir / "config.json", settings, seed, root / "model/qwen2_5_vl_qwen3", output_dir)
    return output_dir


def read_bytes(directory: Path) -> dict[str, bytes]:
    """{name: bytes} of a checkpoint."""
    blobs = {}
    for name, tensor in read_checkpoint(directory).items():
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset)
            blobs[name] = file.read(tensor.num_bytes)
    return blobs


def read_ledger(directory: Path) -> list[dict[str, str]]:
    with open(directory / "ledger.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


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
    rows = [row for row in read_ledger(graft_dir) if row["donor"] == "llm" and row["policy"] == "dropped"]
    assert sorted(row["name"] for row in rows) == norms
    assert {row["reason"] for row in rows} == {"architecture: qwen2_5_vl has no q/k norms; their effect is lost"}
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
    settings = {**SETTINGS, "architecture": "qwen2_5_vl", "calibration": "affine"}
    graft_dir = tmp_path / "graft"
    write_json_atomically(graft_dir / "config.json", derive_from_donors(*donors, settings))
    code_dir, refit_path = root / "model/qwen2_5_vl_qwen3", tmp_path / "refit.safetensors"
    graft(*donors, graft_dir / "config.json", settings, 0, code_dir, graft_dir, refit_path=refit_path)
    result, fitted = read_bytes(graft_dir), {n: to_bytes(values, "bfloat16") for n, values in refit.items()}
    assert result == verbatim | fitted
    rows = [row for row in read_ledger(graft_dir) if row["policy"] == "refitted"]
    assert {row["output_name"]: row["sha256"] for row in rows} == {
        name: hashlib.sha256(blob).hexdigest() for name, blob in fitted.items()
    }
    replaced = [row["name"] for row in read_ledger(graft_dir) if row["reason"] == "calibration: affine; refitted"]
    assert sorted(replaced) == sorted(name for name in refit if name.endswith("weight"))


def test_a_refit_that_lacks_a_tensor_or_does_not_go_with_the_settings_is_refused(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    refit_path, graft_dir = tmp_path / "refit.safetensors", tmp_path / "graft"
    write_refit(donors[1], refit_path, left_out="model.layers.1.self_attn.k_proj.bias")
    settings = {**SETTINGS, "architecture": "qwen2_5_vl", "calibration": "affine"}
    write_json_atomically(graft_dir / "config.json", derive_from_donors(*donors, settings))
    arguments = (*donors, graft_dir / "config.json", settings, 0, root / "model/qwen2_5_vl_qwen3", graft_dir)
    with pytest.raises(UserError, match=r"model.layers.1.self_attn.k_proj.bias: is not in the refit; expected q and k"):
        graft(*arguments, refit_path=refit_path)
    with pytest.raises(UserError, match=r"graft.calibration: 'affine' found without --refit"):
        graft(*arguments)
    with pytest.raises(UserError, match=r"graft.calibration: 'none' found with --refit"):
        graft(*arguments[:3], {**settings, "calibration": "none"}, *arguments[4:], refit_path=refit_path)
    assert [path.name for path in graft_dir.iterdir()] == ["config.json"]


@pytest.mark.parametrize("layout", ["legacy", "new"])
def test_both_layouts_of_tensor_names_give_the_published_one(root: Path, tmp_path: Path, layout: str) -> None:
    expected = read_bytes(run_graft(root, write_tiny_donors(tmp_path / "a"), tmp_path / "a/graft"))
    donors = write_tiny_donors(tmp_path / "b", layout=layout, style="nested", num_shards=1)
    assert read_bytes(run_graft(root, donors, tmp_path / "b/graft")) == expected


def test_tied_embeddings_have_no_head_on_disk(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, tied=True)
    assert "lm_head.weight" not in read_bytes(run_graft(root, donors, tmp_path / "graft"))


def add_head(llm_dir: Path, difference: float) -> None:
    """Saves a tied donor's head beside its embedding, as some savers do."""
    embedding = read_checkpoint(llm_dir)["model.embed_tokens.weight"]
    values = to_float32(read_bytes(llm_dir)["model.embed_tokens.weight"], embedding.dtype).reshape(embedding.shape)
    write_safetensors(llm_dir / "model-00004-of-00004.safetensors", {"lm_head.weight": values + difference}, "bfloat16")
    index = json.loads((llm_dir / "model.safetensors.index.json").read_text())
    index["weight_map"]["lm_head.weight"] = "model-00004-of-00004.safetensors"
    write_json(llm_dir / "model.safetensors.index.json", index)


def test_a_tied_head_that_was_saved_all_the_same_is_dropped(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, tied=True)
    add_head(donors[1], difference=0)
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert "lm_head.weight" not in read_bytes(graft_dir)
    (row,) = [row for row in read_ledger(graft_dir) if row["name"] == "lm_head.weight" and row["donor"] == "llm"]
    assert row["policy"] == "dropped"


def test_a_tied_head_that_differs_from_the_embedding_is_refused(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, tied=True)
    add_head(donors[1], difference=0.5)
    with pytest.raises(UserError, match=r"tensor lm_head.weight differs from model.embed_tokens.weight"):
        run_graft(root, donors, tmp_path / "graft")
    assert [path.name for path in (tmp_path / "graft").iterdir()] == ["config.json"]


def test_donors_of_two_dtypes_keep_theirs_and_every_tensor_stays_aligned(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, vl={"torch_dtype": "bfloat16"}, llm={"torch_dtype": "float32"})
    graft_dir = run_graft(root, donors, tmp_path / "graft", architecture="qwen2_5_vl")
    tensors = read_checkpoint(graft_dir)
    assert {t.dtype for name, t in tensors.items() if name.startswith("visual.")} == {"BF16"}
    assert {t.dtype for name, t in tensors.items() if not name.startswith("visual.")} == {"F32"}
    assert not [t.name for t in tensors.values() if t.offset % {"BF16": 2, "F32": 4}[t.dtype]]
    assert {row["dtype"] for row in read_ledger(graft_dir)} == {"BF16", "F32"}
    assert json.loads((graft_dir / "config.json").read_text())["torch_dtype"] == "float32"


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


def test_everything_is_readable_by_others_and_nothing_temporary_remains(root: Path, tmp_path: Path) -> None:
    graft_dir = run_graft(root, write_tiny_donors(tmp_path, num_shards=1), tmp_path / "graft")
    assert {path.stat().st_mode & 0o777 for path in graft_dir.iterdir() if path.name != "config.json"} == {0o644}
    assert sorted(path.name for path in graft_dir.iterdir()) == [
        "chat_template.jinja", "config.json", "configuration_qwen2_5_vl_qwen3.py", "generation_config.json",
        "ledger.tsv", "merges.txt", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "modeling_qwen2_5_vl_qwen3.py", "preprocessor_config.json", "settings.json",
        "tokenizer.json", "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2_5_vl"])
def test_the_ledger_accounts_once_for_every_tensor_of_both_donors_and_of_the_result(
    root: Path, tmp_path: Path, architecture: str
) -> None:
    donors = write_tiny_donors(tmp_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft", architecture=architecture, aligner="keep")
    rows = read_ledger(graft_dir)
    blobs = {"vl": read_bytes(donors[0]), "llm": read_bytes(donors[1])}
    result = read_bytes(graft_dir)
    for donor, tensors in blobs.items():
        assert sorted(row["name"] for row in rows if row["donor"] == donor) == sorted(tensors)
    assert sorted(row["output_name"] for row in rows if row["output_name"]) == sorted(result)
    for row in rows:
        blob = blobs[row["donor"]][row["name"]] if row["donor"] else result[row["output_name"]]
        assert row["sha256"] == hashlib.sha256(blob).hexdigest()
        assert int(row["bytes"]) == len(blob)
        assert math.prod(map(int, row["shape"].split("x"))) * 2 == len(blob)
        assert bool(row["output_name"]) == (row["policy"] != "dropped")
        assert (row["policy"] == "initialised") == (row["donor"] == "")
        assert row["reason"]
        if row["policy"] == "copied":
            assert result[row["output_name"]] == blob


def test_the_same_seed_gives_the_same_checkpoint_and_another_seed_another_aligner(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    runs = [read_bytes(run_graft(root, donors, tmp_path / f"graft{n}", seed=seed)) for n, seed in enumerate((5, 5, 6))]
    assert runs[0] == runs[1]
    different = [name for name in runs[0] if runs[0][name] != runs[2][name]]
    assert different == ["visual.merger.mlp.0.weight", "visual.merger.mlp.2.weight"]


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


def test_a_second_graft_into_the_same_directory_leaves_nothing_of_the_first(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path, num_shards=1)
    graft_dir = run_graft(root, donors, tmp_path / "graft", max_shard_gb=3e-5)
    (graft_dir / "model.safetensors").write_bytes(b"of another program")
    (graft_dir / ".graft.partial").mkdir()
    (graft_dir / ".graft.partial/model-00001-of-00009.safetensors").write_bytes(b"of a killed run")
    run_graft(root, donors, graft_dir, architecture="qwen2_5_vl")
    assert [path.name for path in graft_dir.glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
    assert not list(graft_dir.glob("*.py"))
    assert not (graft_dir / ".graft.partial").exists()


def test_the_one_chat_template_is_the_one_that_shows_pictures(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert (graft_dir / "chat_template.jinja").read_text() == PICTURE_TEMPLATE
    config, donor_config = (json.loads((d / "tokenizer_config.json").read_text()) for d in (graft_dir, donors[1]))
    assert donor_config.pop("chat_template") == TEXT_TEMPLATE
    assert config == donor_config
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "generation_config.json"):
        assert (graft_dir / name).read_bytes() == (donors[1] / name).read_bytes()


def test_a_template_that_shows_no_pictures_is_passed_over(tmp_path: Path) -> None:
    vl_dir, _ = write_tiny_donors(tmp_path)
    (vl_dir / "chat_template.jinja").write_text(TEXT_TEMPLATE)
    assert chat_template(vl_dir).decode() == PICTURE_TEMPLATE
    (vl_dir / "chat_template.json").unlink()
    with pytest.raises(
        UserError, match=r"no chat template that shows pictures: the one in chat_template.jinja renders"
    ):
        chat_template(vl_dir)


def test_a_template_that_does_not_parse_is_a_fault_not_a_crash() -> None:
    assert "does not render" in str(template_fault("{% for message in messages %}"))
    assert template_fault(PICTURE_TEMPLATE) is None


def test_picture_processing_saved_by_transformers_5_is_taken_out_of_its_one_file(tmp_path: Path) -> None:
    vl_dir, _ = write_tiny_donors(tmp_path)
    (vl_dir / "preprocessor_config.json").unlink()
    write_json(
        vl_dir / "processor_config.json",
        {"image_processor": {"patch_size": 14}, "video_processor": {"patch_size": 15}, "processor_class": "X"},
    )
    files = {name: json.loads(content) for name, content in processor_files(vl_dir).items()}
    assert files == {
        "preprocessor_config.json": {"patch_size": 14, "processor_class": "Qwen2_5_VLProcessor"},
        "video_preprocessor_config.json": {"patch_size": 15, "processor_class": "Qwen2_5_VLProcessor"},
    }
    (vl_dir / "processor_config.json").unlink()
    with pytest.raises(UserError, match="expected the vision donor's picture processing"):
        processor_files(vl_dir)


def test_a_missing_generation_config_is_made_from_the_language_donors_ids(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    (donors[1] / "generation_config.json").unlink()
    graft_dir = run_graft(root, donors, tmp_path / "graft")
    assert json.loads((graft_dir / "generation_config.json").read_text()) == {
        "bos_token_id": TOKEN_IDS["<|endoftext|>"],
        "eos_token_id": TOKEN_IDS["<|im_end|>"],
    }


def test_the_effective_settings_lie_beside_the_result(root: Path, tmp_path: Path) -> None:
    graft_dir = run_graft(root, write_tiny_donors(tmp_path), tmp_path / "graft", seed=7)
    assert json.loads((graft_dir / "settings.json").read_text()) == {"graft": SETTINGS, "seed": 7}


def test_a_config_json_that_was_changed_by_hand_is_refused(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    config = derive_from_donors(*donors, SETTINGS)
    config["text_config"]["num_hidden_layers"] = 1
    write_json(tmp_path / "config.json", config)
    arguments = (tmp_path / "config.json", SETTINGS, 0, root / "model/qwen2_5_vl_qwen3")
    with pytest.raises(UserError, match=r"config.json: text_config.num_hidden_layers is 1; .* imply 2; delete"):
        graft(*donors, *arguments, tmp_path / "graft")


def test_progress_says_how_much_how_fast_and_how_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_lines = 0

    def counted(*amounts: Any) -> str:
        nonlocal num_lines
        num_lines += 1
        return progress_line(*amounts)

    monkeypatch.setattr(safetensors_writer, "progress_line", counted)

    def held_slabs() -> Any:
        """Each is given when a line more has been said, however fast the machine is."""
        for number in range(3):
            yield bytes(1 << 20)
            wait_for(lambda number=number: num_lines > number)
        yield bytes(17 << 20)

    tensor = OutputTensor("x", "F32", (5 << 20,), None, held_slabs)
    write_shards([tensor], lay_out_shards([tensor], 10**9), tmp_path, "graft", report_interval_s=0.02)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert all(line.startswith("graft: [") and " of 0.02 GB, " in line and line.endswith("s left") for line in lines)
    assert progress_line("graft", 3 * 10**9, 12 * 10**9, 2.0) == (
        "graft: [#######-----------------------] 3.00 of 12.00 GB, 1500 MB/s, 6 s left"
    )


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_nan_and_infinity_are_found_and_the_largest_finite_value_is_not(dtype: str) -> None:
    largest = {"BF16": b"\x7f\x7f", "F16": b"\xff\x7b", "F32": b"\xff\xff\x7f\x7f"}[dtype]
    infinity = {"BF16": b"\x80\x7f", "F16": b"\x00\x7c", "F32": b"\x00\x00\x80\x7f"}[dtype]
    negative_nan = {"BF16": b"\xc1\xff", "F16": b"\x01\xfe", "F32": b"\x01\x00\xc0\xff"}[dtype]
    assert first_non_finite(largest * 5, dtype) is None
    assert first_non_finite(b"", dtype) is None
    assert first_non_finite(largest * 3 + infinity + largest, dtype) == 3
    assert first_non_finite(largest + negative_nan, dtype) == 1


def test_float32_is_rounded_to_the_nearest_bfloat16_ties_to_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8], np.float32)
    assert to_float32(from_float32(values, "BF16"), "BF16").tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -1]
