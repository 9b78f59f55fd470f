"""The fidelity check: what it says of sound grafts, and that a graft which is not its donor's is refused."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, kl_div

from helpers.tiny_donor_files import TEXT_TEMPLATE, edit_json, write_tiny_donors
from helpers.tiny_graft import SECTION
from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.common.reading import SEAL_KEY, write_sealed
from scripts.donors.checksums import needed_files, record_files
from scripts.donors.manifest import DonorManifest, write_manifest
from scripts.donors.settings import DonorSource
from scripts.graft import check_fidelity
from scripts.graft.calibration_report import CalibrationReport
from scripts.graft.fidelity import Gate
from scripts.graft.logit_comparison import compare
from scripts.graft.picture_check import picture_problem
from scripts.graft.settings import CalibrationSettings

TEXT = "The quick brown fox jumps over the lazy dog.\n\nTwo paragraphs,\nthe second of two lines.\n\n\nA third one."
Run = Callable[..., dict[str, Any]]


def make_graft(root: Path, directory: Path, architecture: str, **donor_options: Any) -> tuple[Path, Path]:
    """Grafts tiny random donors by the programs of the workflow; returns the graft's and the language donor's directory."""
    vl_dir, llm_dir = write_tiny_donors(directory, **donor_options)
    graft_dir, python_path = directory / "graft", root / ".venv/bin/python"
    settings = json.dumps(SECTION | {"architecture": architecture, "aligner": "keep"})
    donors = ["--vl-dir", str(vl_dir), "--llm-dir", str(llm_dir), "--settings", settings]
    derive = ["scripts", "graft.derive_config", *donors, "--output", str(graft_dir / "config.json")]
    graft = ["scripts", "graft.graft", *donors, "--model-config", str(graft_dir / "config.json"), "--seed", "0"]
    graft += ["--model-code-dir", "model/qwen2_5_vl_qwen3", "--output-dir", str(graft_dir)]
    for command in (derive, graft):
        subprocess.run([str(python_path), *command], cwd=root, check=True)
    return graft_dir, llm_dir


@pytest.fixture(scope="module")
def lossless(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_graft(root, tmp_path_factory.mktemp("lossless"), "qwen3")


@pytest.fixture(scope="module")
def stock(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_graft(root, tmp_path_factory.mktemp("stock"), "qwen2_5_vl")


@pytest.fixture
def copied(lossless: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the lossless graft that a test may spoil, and the donor."""
    graft_dir, llm_dir = lossless
    shutil.copytree(graft_dir, tmp_path / "graft")
    return tmp_path / "graft", llm_dir


@pytest.fixture
def broken(copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The same, for what must be noticed although the ledger says the same."""
    monkeypatch.setattr(check_fidelity, "check_ledger", lambda _: None)
    return copied


def declare(graft_dir: Path) -> None:
    """As if the graft had been made with the files that lie there now."""
    path = graft_dir / "settings.json"
    saved = json.loads(path.read_text())
    del saved[SEAL_KEY]
    write_sealed(path, saved | {"files": {name: sha256_of_file(graft_dir / name) for name in saved["files"]}})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program in this process and returns what it wrote."""

    def run_check(
        directories: tuple[Path, Path],
        text: str = TEXT,
        name: str = "text.txt",
        dtype: str = "float32",
        limit: int = 256,
        llm_manifest: Path | None = None,
    ) -> dict[str, Any]:
        (tmp_path / name).write_text(text)
        settings = {"text": str(tmp_path / name), "dtype": dtype, "max_tokens": limit}
        arguments = ["--graft-dir", str(directories[0]), "--llm-dir", str(directories[1])]
        arguments += ["--settings", json.dumps(settings), "--output", str(tmp_path / "fidelity.json")]
        arguments += ["--llm-manifest", str(llm_manifest)] if llm_manifest else []
        monkeypatch.setattr(sys, "argv", ["check_fidelity.py", *arguments])
        check_fidelity.main()
        result: dict[str, Any] = json.loads((tmp_path / "fidelity.json").read_text())
        return result

    return run_check


def edit_tensors(
    directory: Path,
    edit: Callable[[dict[str, torch.Tensor]], None],
    name: str = "model.layers.0.self_attn.q_norm.weight",
) -> None:
    """Changes tensors of the shard that holds `name`, in place on disk."""
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    shard_path = directory / index["weight_map"][name]
    tensors = load_file(shard_path)
    edit(tensors)
    save_file(tensors, shard_path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_lossless_graft_equals_its_donor_bit_for_bit(lossless: tuple[Path, Path], run: Run, dtype: str) -> None:
    result = run(lossless, dtype=dtype)
    assert result["architecture"] == "qwen3"
    assert result["bit_equal"] is True
    assert result["num_texts"] == 3
    assert result["num_tokens"] == len(TEXT.replace("\n\n\n", "").replace("\n\n", "")), "one token a byte"
    assert (result["max_abs_difference"], result["kl_mean_nats"], result["top1_agreement"]) == (0, 0, 1)
    assert result["perplexity_donor"] == result["perplexity_graft"] > 1
    assert result["dropped"] == {"num_tensors": 0, "num_parameters": 0, "kinds": {}}
    assert result["picture"]["mrope_axes_differ"] is True
    assert {"missing_keys", "unexpected_keys", "mismatched_keys"} <= result["loading_info"].keys()
    assert not any(result["loading_info"].values())
    assert result["versions"].keys() == {"torch", "transformers"}


def test_tied_embeddings_and_a_head_size_of_its_own_are_lossless_too(root: Path, tmp_path: Path, run: Run) -> None:
    llm = {"hidden_size": 48, "num_attention_heads": 4, "head_dim": 16}
    directories = make_graft(root, tmp_path / "donors", "qwen3", tied=True, llm=llm)
    assert run(directories)["bit_equal"] is True


def test_a_stock_graft_is_measured_and_what_was_lost_is_printed(
    stock: tuple[Path, Path], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(stock)
    assert result["architecture"] == "qwen2_5_vl"
    assert result["bit_equal"] is False
    assert result["kl_mean_nats"] > 0
    assert 0 <= result["top1_agreement"] <= 1
    assert result["perplexity_donor"] != result["perplexity_graft"]
    num_layers, head_dim = 2, 16
    kinds = {"self_attn.k_norm.weight": num_layers, "self_attn.q_norm.weight": num_layers}
    expected = {"num_tensors": 2 * num_layers, "num_parameters": 2 * num_layers * head_dim, "kinds": kinds}
    assert result["dropped"] == expected
    printed = capsys.readouterr().err
    assert "lost: 4 tensors of the language donor (2 self_attn.k_norm.weight, 2 self_attn.q_norm.weight; 64" in printed
    assert "KL divergence" in printed


def test_the_figures_are_those_of_torchs_own_functions() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 11, (length,), generator=generator) for length in (100, 7)]
    donor, graft = ([torch.randn(len(ids), 11, generator=generator) for ids in texts] for _ in range(2))
    padded = [torch.zeros(3, 11)]
    figures = compare(texts, donor + padded, graft + padded)
    p, q = torch.cat(donor).log_softmax(-1), torch.cat(graft).log_softmax(-1)
    targets = torch.cat([ids[1:] for ids in texts])
    assert figures.kl_mean_nats == pytest.approx(kl_div(q, p, log_target=True, reduction="batchmean").item())
    for name, logits in (("donor", donor), ("graft", graft)):
        loss = cross_entropy(torch.cat([values[:-1] for values in logits]), targets).item()
        assert getattr(figures, f"perplexity_{name}") == pytest.approx(math.exp(loss))
    assert figures.top1_agreement == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())
    assert figures.max_abs_difference == pytest.approx((torch.cat(donor) - torch.cat(graft)).abs().max().item())
    assert str(figures.first_difference).startswith("text 1, token 0, vocabulary entry 0: donor ")


def test_a_difference_in_the_padded_batch_alone_is_a_difference() -> None:
    texts = [torch.arange(5), torch.arange(3)]
    donor = [torch.randn(length, 11, generator=torch.Generator().manual_seed(length)) for length in (5, 3, 8)]
    graft = [values.clone() for values in donor]
    assert compare(texts, donor, graft).bit_equal
    graft[2][6, 4] += 0.5
    figures = compare(texts, donor, graft)
    assert not figures.bit_equal
    assert str(figures.first_difference).startswith("left-padded batch, token 6, vocabulary entry 4: donor ")
    assert figures.max_abs_difference == pytest.approx(0.5)


def test_texts_of_two_lengths_are_padded_on_the_left_and_the_padding_is_masked() -> None:
    batch = check_fidelity.left_padded([torch.tensor([5, 6, 7, 8]), torch.tensor([9, 10])])
    assert batch["input_ids"].tolist() == [[0, 0, 9, 10], [5, 6, 7, 8]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    one = check_fidelity.left_padded([torch.tensor([5, 6, 7, 8])])
    assert one["attention_mask"].sum(1).tolist() == [2, 4], "of a single length one is made shorter"


def gate_of(text: Path) -> Gate:
    """The report of a refit that was made on a text."""
    settings = CalibrationSettings(
        device="cpu", dtype="float32", max_tokens=4096, ridge=1e-4, sequence_length=64, text=str(text)
    )
    report = CalibrationReport(
        settings=settings,
        text_sha256="ab",
        donor_sha256={},
        versions={},
        signature="cd",
        num_threads=1,
        refit_sha256="ef",
        num_tokens=90,
        num_tokens_held_out=10,
        peak_memory_bytes=0,
        layers=[],
    )
    return Gate(report, 0.05)


@pytest.mark.parametrize("calibration", ["affine", "none"])
def test_a_gate_is_asked_for_by_what_the_graft_says_of_itself(tmp_path: Path, calibration: str) -> None:
    section = {**SECTION, "architecture": "qwen2_5_vl", "calibration": calibration}
    write_sealed(tmp_path / "settings.json", {"graft": section, "seed": 0, "files": {}})
    right: Gate | None = gate_of(tmp_path / "fitted.txt")
    wrong: Gate | None = None
    if calibration == "none":
        right, wrong = wrong, right
    check_fidelity.check_is_as_made(tmp_path, right)
    with pytest.raises(UserError, match=f"calibration is '{calibration}', and"):
        check_fidelity.check_is_as_made(tmp_path, wrong)
    path = tmp_path / "settings.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match=r"settings\.json: edited by hand"):
        check_fidelity.check_is_as_made(tmp_path, right)


def test_an_edited_file_beside_the_weights_is_not_blessed(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text('{"image_mean": [0.4]}')
    files = {path.name: sha256_of_file(path)}
    write_sealed(tmp_path / "settings.json", {"graft": dict(SECTION), "seed": 0, "files": files})
    check_fidelity.check_is_as_made(tmp_path, None)
    path.write_text('{"image_mean": [0.5]}')
    with pytest.raises(UserError, match=r"preprocessor_config\.json: sha256 .* edited since the graft was made"):
        check_fidelity.check_is_as_made(tmp_path, None)


def test_a_refit_is_not_measured_on_a_paragraph_that_it_was_fitted_on(tmp_path: Path) -> None:
    shared = "A paragraph that is long enough not to be the same by chance."
    (tmp_path / "fitted.txt").write_text(f"One of its own.\n\n{shared}\n")
    (tmp_path / "measured.txt").write_text("Short.\n\nAnother one.\n")
    gate = gate_of(tmp_path / "fitted.txt")
    check_fidelity.check_held_out(tmp_path / "measured.txt", gate, None)
    (tmp_path / "measured.txt").write_text(f"Short.\n\n{shared}\n")
    with pytest.raises(UserError, match=r"measured\.txt: shares 1 paragraphs with"):
        check_fidelity.check_held_out(tmp_path / "measured.txt", gate, None)


def test_no_more_tokens_are_read_than_asked_for(lossless: tuple[Path, Path], run: Run) -> None:
    result = run(lossless, limit=50)
    assert (result["num_texts"], result["num_tokens"]) == (2, 50)


def test_training_rows_are_rendered_by_the_chat_template_without_their_pictures(
    lossless: tuple[Path, Path], run: Run
) -> None:
    messages = [{"role": "user", "content": "<image>what?"}, {"role": "assistant", "content": "A"}]
    rendered = ["<|im_start|>", "user\nwhat?", "<|im_end|>", "\n", "<|im_start|>", "assistant\nA", "<|im_end|>", "\n"]
    result = run(lossless, text=json.dumps({"messages": messages}) + "\n", name="rows.jsonl")
    assert result["num_texts"] == 1
    assert result["num_tokens"] == sum(1 if part.startswith("<|") else len(part) for part in rendered)


def test_one_changed_number_is_found_and_its_place_named(broken: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.q_norm.weight"][3] *= 1.1

    edit_tensors(broken[0], change)
    with pytest.raises(
        UserError, match=r"differ.*first in text 1, token 1, vocabulary entry 0: donor .* graft .*greatest"
    ):
        run(broken)
    assert not (tmp_path / "fidelity.json").exists()


def test_a_graft_that_is_not_what_its_ledger_declares_is_not_even_loaded(
    copied: tuple[Path, Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.q_norm.weight"][3] *= 1.1

    edit_tensors(copied[0], change)
    monkeypatch.setattr(check_fidelity, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(
        UserError, match=r"q_norm\.weight is 16 of BF16 with sha256 \w{64}; .*ledger\.tsv declares 16 of BF16 with"
    ):
        run(copied)
    assert not (tmp_path / "fidelity.json").exists()


def test_a_donor_that_is_not_the_recorded_one_is_not_even_loaded(
    lossless: tuple[Path, Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm_dir = shutil.copytree(lossless[1], tmp_path / "llm")
    manifest_path = tmp_path / "llm.json"
    write_manifest(
        manifest_path, DonorManifest("llm", DonorSource("demo"), str(llm_dir), record_files(needed_files(llm_dir)))
    )
    run((lossless[0], llm_dir), llm_manifest=manifest_path)
    path = next(llm_dir.glob("*.safetensors"))
    before = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    os.utime(path, ns=(before, before))
    monkeypatch.setattr(check_fidelity, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match=rf"{path}: changed since {manifest_path} was written \(sha256 \w{{64}} found"):
        run((lossless[0], llm_dir), llm_manifest=manifest_path)


def test_a_setting_that_is_not_the_donors_is_found(broken: tuple[Path, Path], run: Run) -> None:
    config = json.loads((broken[0] / "config.json").read_text())
    edit_json(broken[0] / "config.json", text_config=config["text_config"] | {"rms_norm_eps": 1e-5})
    declare(broken[0])
    with pytest.raises(UserError, match="text logits differ"):
        run(broken)


def test_a_tensor_that_would_be_initialised_at_random_is_found(broken: tuple[Path, Path], run: Run) -> None:
    name = "model.layers.1.self_attn.k_norm.weight"
    edit_tensors(broken[0], lambda tensors: tensors.pop(name), name)
    with pytest.raises(UserError, match=r"missing_keys when loaded: .*layers\.1\.self_attn\.k_norm\.weight"):
        run(broken)


def test_a_tensor_without_a_place_is_found(broken: tuple[Path, Path], run: Run) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.self_attn.q_proj.bias"] = torch.zeros(64)

    edit_tensors(broken[0], add)
    with pytest.raises(UserError, match=r"unexpected_keys when loaded: .*q_proj\.bias"):
        run(broken)


def test_a_chat_template_that_shows_no_picture_is_found(broken: tuple[Path, Path], run: Run) -> None:
    """As Qwen3's own: the model would answer every question without ever seeing a picture."""
    (broken[0] / "chat_template.jinja").write_text(TEXT_TEMPLATE)
    declare(broken[0])
    with pytest.raises(UserError, match="shows no picture"):
        run(broken)


def test_a_donor_that_answers_nan_is_named(lossless: tuple[Path, Path], run: Run, tmp_path: Path) -> None:
    shutil.copytree(lossless[1], tmp_path / "llm")

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.q_norm.weight"][0] = math.nan

    edit_tensors(tmp_path / "llm", spoil)
    with pytest.raises(UserError, match=r"llm: the logits of text 1 are not finite"):
        run((lossless[0], tmp_path / "llm"))


@pytest.mark.parametrize("content", ["{", '{"query": "?"}', '{"messages": [{"role": "user", "content": null}]}'])
def test_a_row_that_is_none_is_named(lossless: tuple[Path, Path], run: Run, content: str) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl, row 1: no row of training data"):
        run(lossless, text=content, name="rows.jsonl")


def test_an_empty_text_is_refused(lossless: tuple[Path, Path], run: Run) -> None:
    with pytest.raises(UserError, match="no text found"):
        run(lossless, text="\n\n \n")


def test_by_hand_a_refusal_is_one_message_and_exit_status_1(
    root: Path, lossless: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = json.dumps({"text": str(tmp_path / "absent.txt"), "dtype": "float32", "max_tokens": 64})
    command = [sys.executable, "scripts", "graft.check_fidelity", "--graft-dir", str(lossless[0])]
    command += ["--llm-dir", str(lossless[1]), "--settings", settings, "--output", str(tmp_path / "fidelity.json")]
    finished = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert finished.returncode == 1
    assert "absent.txt: not found" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "fidelity.json").exists()


def test_a_picture_that_is_not_seen_as_one_is_named() -> None:
    axes = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]])
    one, other = torch.zeros(5), torch.ones(5)
    assert picture_problem([one, other], axes) is None
    assert "not looked at" in str(picture_problem([one, one], axes))
    assert "not finite" in str(picture_problem([one, other * math.inf], axes))
    assert "m-RoPE" in str(picture_problem([one, other], axes[[1, 1, 2]]))
