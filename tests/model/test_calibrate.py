"""The refit of q and k: its mathematics, its refusals, what a killed run leaves, and what it is worth on a trained donor."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from helpers.kills import killed_at_each_removal
from helpers.make_trained_donor import make_trained_donors
from helpers.tiny_donor_files import write_tiny_donors
from helpers.tiny_graft import SECTION
from scripts.common.errors import UserError
from scripts.donors.safetensors_files import read_checkpoint
from scripts.graft import calibrate, calibration_donor
from scripts.graft.affine_refit import Moments, Refit, factor, fitted_residual, normalised_heads, refit
from scripts.graft.calibrate import CalibrationPaths
from scripts.graft.calibration_report import CalibrationReport, read_calibration
from scripts.graft.check_fidelity import check_fidelity
from scripts.graft.fidelity import Fidelity, Gate, RefitFigures
from scripts.graft.layer_fit import advance, fit_layer
from scripts.graft.settings import CalibrationSettings, FidelitySettings

EPSILON = 1e-6
SETTINGS = CalibrationSettings(
    device="cpu", dtype="float32", max_tokens=4096, ridge=1e-4, sequence_length=64, text="text.txt"
)
TRAINED = {
    "num_base_tokens": 256,
    "language": {
        "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "initializer_range": 0.02, "tie_word_embeddings": True,
    },
    "num_steps": 200, "batch_size": 12, "sequence_length": 96, "learning_rate": 0.005,
}  # fmt: skip


def fit(inputs: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, head_dim: int, ridge: float) -> Refit:
    moments = Moments(inputs.double().mean(0), targets.shape[1])
    for rows in (slice(0, 700), slice(700, None)):
        moments.add(inputs[rows], targets[rows])
    everything = slice(0, targets.shape[1])
    return refit(moments, factor(moments, ridge), everything, weight, head_dim, torch.float32)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_target_that_is_affine_is_recovered() -> None:
    inputs, weight, bias = random(2000, 24, seed=0) + 3, random(16, 24, seed=1), random(16, seed=2)
    found = fit(inputs, inputs @ weight.T + bias, random(16, 24, seed=3), head_dim=8, ridge=1e-12)
    assert torch.allclose(found.weight, weight, atol=1e-4)
    assert torch.allclose(found.bias, bias, atol=1e-3)


@pytest.mark.parametrize("ridge", [1e-6, 10.0])
def test_a_norm_whose_rms_is_constant_is_reproduced_whatever_the_ridge(ridge: float) -> None:
    """Then it is one matrix a head, which is fitted first and to which the ridge draws."""
    gain, (left, values, right) = random(8, seed=0).exp(), torch.linalg.svd(random(16, 24, seed=1), full_matrices=False)
    heads = torch.nn.functional.normalize(random(2000, 2, 8, seed=2), dim=-1).flatten(1) * 3
    weight = left @ values.diag() @ right
    inputs = heads @ torch.linalg.pinv(weight).T
    targets = normalised_heads(inputs @ weight.T, gain, EPSILON)
    found = fit(inputs, targets, weight, head_dim=8, ridge=ridge)
    assert torch.allclose(inputs @ found.weight.T + found.bias, targets, atol=1e-4)


def test_the_bias_makes_the_mean_exact_after_the_weight_is_rounded() -> None:
    inputs, weight, gain = random(2000, 24, seed=0) + 2, random(16, 24, seed=1), random(8, seed=2).exp()
    targets = normalised_heads(inputs @ weight.T, gain, EPSILON)
    moments = Moments(inputs.double().mean(0), 16)
    moments.add(inputs, targets)
    found = refit(moments, factor(moments, 1e-2), slice(0, 16), weight, 8, torch.bfloat16)
    means = inputs.double().mean(0) @ found.weight.double().T + found.bias.double()
    assert torch.allclose(means, targets.double().mean(0), atol=0.02), "within the bias's own rounding"
    left = (targets - inputs @ found.weight.float().T).double()
    expected = ((left - left.mean(0)).square().sum() / (targets - targets.mean(0)).square().sum()).sqrt().item()
    assert fitted_residual(moments, slice(0, 16), found) == pytest.approx(expected, rel=1e-3)


def test_moments_that_are_not_finite_are_refused() -> None:
    moments = Moments(torch.zeros(4, dtype=torch.float64), 4)
    moments.add(torch.full((8, 4), torch.nan), torch.zeros(8, 4))
    with pytest.raises(ValueError, match="not positive definite"):
        factor(moments, 1e-3)


def test_a_direction_that_the_text_says_nothing_of_is_left_as_the_donor_has_it() -> None:
    """Without the ridge there would be no solution at all."""
    inputs, weight = random(2000, 24, seed=0), random(16, 24, seed=1)
    inputs[:, 20:] = 0
    found = fit(inputs, random(2000, 16, seed=2), weight, head_dim=8, ridge=1e-4)
    by_head = fit(inputs, random(2000, 16, seed=2), weight, head_dim=8, ridge=1e6)  # nothing but the first fit
    assert torch.allclose(found.weight[:, 20:], by_head.weight[:, 20:], atol=1e-4)
    assert not torch.allclose(found.weight[:, :20], by_head.weight[:, :20], atol=1e-2)


class Workplace:
    """A donor, a text, and the program run in this process."""

    def __init__(self, llm_dir: Path, directory: Path, text: str) -> None:
        self.llm_dir, self.directory = llm_dir, directory
        self.output, self.report = directory / "out/refit.safetensors", directory / "out/calibration.json"
        (directory / "text.txt").write_text(text)

    def run(self, **settings: Any) -> CalibrationReport:
        calibrate.calibrate(
            calibration_donor.open_donor(self.llm_dir),
            replace(SETTINGS, text=str(self.directory / "text.txt"), **settings),
            CalibrationPaths(self.directory / "work", self.output, self.report),
        )
        return read_calibration(self.report)

    def work_dirs(self) -> list[Path]:
        return sorted((self.directory / "work").iterdir())


@pytest.fixture
def random_donor(tmp_path: Path) -> Path:
    return write_tiny_donors(tmp_path / "donors", num_shards=2)[1]


@pytest.fixture
def workplace(random_donor: Path, tmp_path: Path) -> Workplace:
    letters = torch.randint(97, 123, (4096,), generator=torch.Generator().manual_seed(0)).tolist()
    return Workplace(random_donor, tmp_path, bytes(letters).decode())


def test_names_shapes_and_dtype_are_those_of_a_stock_checkpoint(workplace: Workplace) -> None:
    report = workplace.run()
    tensors = load_file(workplace.output)
    donor = calibration_donor.open_donor(workplace.llm_dir)
    names = [f"model.layers.{n}.self_attn.{p}_proj.{k}" for n in (0, 1) for p in "qk" for k in ("weight", "bias")]
    assert sorted(tensors) == sorted(names)
    for name in names:
        if name.endswith("weight"):
            assert tensors[name].shape == donor.tensors[name].shape
            assert tensors[name.replace("weight", "bias")].shape == tensors[name].shape[:1]
        assert tensors[name].dtype == torch.bfloat16
    assert (report.num_tokens, report.num_tokens_held_out) == (4096, 512)
    assert workplace.work_dirs() == []


def test_each_layer_is_given_what_the_whole_donor_gives_it(workplace: Workplace) -> None:
    """Streamed layer by layer, the hidden states are the model's own."""
    donor = calibration_donor.open_donor(workplace.llm_dir)
    ids = torch.arange(97, 123).view(2, 13)
    model = AutoModelForCausalLM.from_pretrained(workplace.llm_dir, dtype=torch.float32)
    with torch.inference_mode():
        expected = model(input_ids=ids, output_hidden_states=True).hidden_states
        hidden = calibration_donor.read_embeddings(donor, ids)
        assert torch.equal(hidden, expected[0])
        rotary = Qwen3RotaryEmbedding(donor.config)
        advance(calibration_donor.load_layer(donor, 0, torch.float32, "cpu"), rotary, hidden, "cpu")
        assert torch.allclose(hidden, expected[1], atol=1e-5)


def test_a_killed_run_goes_on_and_gives_the_same_bytes(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.run()
    expected = workplace.output.read_bytes()
    workplace.output.unlink()
    loaded: list[int] = []
    load = calibration_donor.load_layer

    def load_or_die(donor: Any, number: int, *rest: Any) -> Any:
        loaded.append(number)
        if loaded == [0, 1]:
            raise KeyboardInterrupt
        return load(donor, number, *rest)

    monkeypatch.setattr(calibrate, "load_layer", load_or_die)
    with pytest.raises(KeyboardInterrupt):
        workplace.run()
    assert not workplace.output.exists()
    workplace.run()
    assert loaded == [0, 1, 1]
    assert workplace.output.read_bytes() == expected


def refit_layers_only(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a run that ended when all its layers were done."""
    with monkeypatch.context() as patched, pytest.raises(OSError, match="stopped"):
        patched.setattr(calibrate, "assemble", stop)
        workplace.run()
    (left,) = workplace.work_dirs()
    return left


def stop(*arguments: Any) -> None:
    raise OSError("stopped")


def test_wherever_a_refit_is_killed_while_it_tidies_up_the_same_command_gives_the_same_bytes(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = refit_layers_only(workplace, monkeypatch)
    shutil.copytree(left, tmp_path / "all layers")
    workplace.run()
    expected = workplace.output.read_bytes()

    def all_layers_are_done() -> None:
        shutil.copytree(tmp_path / "all layers", left)

    num_kills = 0
    for _ in killed_at_each_removal(workplace.run, all_layers_are_done, monkeypatch):
        num_kills += 1
        workplace.output.unlink(missing_ok=True)
        assert len(workplace.run().layers) == 2
        assert workplace.output.read_bytes() == expected
        assert workplace.work_dirs() == []
    assert num_kills > 8  # two outputs that take their names, and each file of the directory


@pytest.mark.parametrize("lost", ["layer-000.bin", "layer-001.json", "hidden-002.f32"])
def test_a_refit_whose_files_are_not_all_there_begins_again_where_they_are(
    workplace: Workplace, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a cluster tidies up its disk."""
    left = refit_layers_only(workplace, monkeypatch)
    workplace.run()
    expected = workplace.output.read_bytes()
    refit_layers_only(workplace, monkeypatch)
    (left / lost).unlink()
    workplace.run()
    assert workplace.output.read_bytes() == expected


def test_other_settings_do_not_go_on_with_what_is_there(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(calibrate, "assemble", die)
        workplace.run()
    (left,) = workplace.work_dirs()
    other = workplace.run(ridge=1.0)
    assert other.signature != left.name
    assert workplace.work_dirs() == [left]


def test_another_donor_does_not_go_on_with_what_is_there(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrate, "assemble", die)
    for value in (0.25, 0.5):
        spoil(workplace.llm_dir, "model.layers.0.mlp.up_proj.weight", value)
        with pytest.raises(KeyboardInterrupt):
            workplace.run()
    assert len(workplace.work_dirs()) == 2


def test_sequences_that_are_held_out_are_measured_and_enter_no_fit(workplace: Workplace) -> None:
    donor = calibration_donor.open_donor(workplace.llm_dir)
    layer = calibration_donor.load_layer(donor, 0, torch.float32, "cpu")
    target = calibration_donor.target_of(donor, 0, "cpu")
    hidden = random(16, 64, 64, seed=0)
    others = hidden.clone()
    others[::8] = random(2, 64, 64, seed=1) + 1
    first, second = (fit_layer(layer, target, each, 1e-4, torch.float32, "cpu") for each in (hidden, others))
    for p in ("q", "k"):
        assert torch.equal(first.fits[p].weight, second.fits[p].weight)
        assert torch.equal(first.fits[p].bias, second.fits[p].bias)
        assert first.figures[p].relative_residual == second.figures[p].relative_residual
        assert first.figures[p].relative_residual_held_out != second.figures[p].relative_residual_held_out


def test_what_is_fitted_is_the_donors_own_norm(workplace: Workplace) -> None:
    donor = calibration_donor.open_donor(workplace.llm_dir)
    layer = calibration_donor.load_layer(donor, 1, torch.float32, "cpu")
    inputs = random(5, 64, seed=0)
    attention, shape = layer.self_attn, (5, -1, 16)
    queries = attention.q_norm(attention.q_proj(inputs).view(shape)).flatten(1)
    keys = attention.k_norm(attention.k_proj(inputs).view(shape)).flatten(1)
    found = calibration_donor.target_of(donor, 1, "cpu").of(inputs)
    assert torch.allclose(found, torch.cat([queries, keys], dim=1), atol=1e-5)


def test_too_short_a_text_is_refused_with_the_number_it_needs(workplace: Workplace) -> None:
    with pytest.raises(
        UserError, match=r"text.txt: 192 tokens to fit found.*at least 260, 4 for each of hidden_size \+ 1 = 65"
    ):
        workplace.run(max_tokens=256)


def spoil(llm_dir: Path, name: str, value: float) -> None:
    (path,) = {tensor.path for key, tensor in read_checkpoint(llm_dir).items() if key == name}
    tensors = load_file(path)
    tensors[name].view(-1)[5] = value
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_norm.weight", "model.embed_tokens.weight"]
)
def test_nan_in_the_donor_is_named(workplace: Workplace, name: str) -> None:
    if name == "model.embed_tokens.weight":
        (path,) = {tensor.path for key, tensor in read_checkpoint(workplace.llm_dir).items() if key == name}
        tensors = load_file(path)
        tensors[name][100] = torch.nan
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        spoil(workplace.llm_dir, name, torch.nan)
    with pytest.raises(UserError, match=rf"tensor {name} holds NaN"):
        workplace.run()
    assert not workplace.output.exists()


def test_activations_that_overflow_are_named_with_their_layer(workplace: Workplace) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    spoil(workplace.llm_dir, name, 3e38)
    spoil(workplace.llm_dir, "model.layers.0.mlp.up_proj.weight", 3e38)
    with pytest.raises(UserError, match="layer 0 gives NaN or infinity"):
        workplace.run()


def test_a_gpu_that_is_not_there_is_refused(workplace: Workplace) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"calibration\.device: cuda found"):
        workplace.run(device="cuda")


# --- on a trained donor ---


@pytest.fixture(scope="module")
def trained_dir(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Donors trained on fitted.txt, held_out.txt beside it, the refit, and both grafts."""
    directory = tmp_path_factory.mktemp("trained")
    text = (root / "texts/calibration.txt").read_text()
    cut = text.index("\n\n", len(text) * 4 // 5)
    (directory / "fitted.txt").write_text(text[:cut])
    (directory / "held_out.txt").write_text(text[cut:])
    make_trained_donors([directory / "fitted.txt"], TRAINED, 0, directory / "donors")
    settings = replace(SETTINGS, text=str(directory / "fitted.txt"), max_tokens=32768)
    donor = calibration_donor.open_donor(directory / "donors/llm")
    paths = CalibrationPaths(directory / "work", directory / "refit.safetensors", directory / "calibration.json")
    calibrate.calibrate(donor, settings, paths)
    for calibration in ("none", "affine"):
        make_graft(root, directory, calibration)
    return directory


def make_graft(root: Path, directory: Path, calibration: str) -> None:
    settings = SECTION | {"architecture": "qwen2_5_vl", "calibration": calibration}
    donors = ["--vl-dir", directory / "donors/vl", "--llm-dir", directory / "donors/llm"]
    donors += ["--settings", json.dumps(settings)]
    graft_dir = directory / calibration
    derive = ["scripts", "graft.derive_config", *donors, "--output", graft_dir / "config.json"]
    graft = ["scripts", "graft.graft", *donors, "--model-config", graft_dir / "config.json", "--seed", 0]
    graft += ["--model-code-dir", "model/qwen2_5_vl_qwen3", "--output-dir", graft_dir]
    graft += ["--refit", directory / "refit.safetensors"] if calibration == "affine" else []
    for command in (derive, graft):
        subprocess.run([str(root / ".venv/bin/python"), *map(str, command)], cwd=root, check=True)


def check(directory: Path, calibration: str, max_kl_nats: float | None, text: str = "held_out.txt") -> Fidelity:
    """The figures of fidelity.json, gated where a greatest KL divergence is given."""
    settings = FidelitySettings(dtype="float32", max_tokens=2048, text=str(directory / text))
    report = read_calibration(directory / "calibration.json")
    gate = None if max_kl_nats is None else Gate(report, max_kl_nats)
    return check_fidelity(directory / calibration, directory / "donors/llm", settings, gate)


@pytest.mark.full
def test_the_refit_is_twenty_times_nearer_to_its_donor_on_text_that_is_new_to_both(trained_dir: Path) -> None:
    verbatim, affine = check(trained_dir, "none", None), check(trained_dir, "affine", 1.0)
    assert (verbatim.calibration.kind, affine.calibration.kind) == ("none", "affine")
    assert affine.kl_mean_nats <= verbatim.kl_mean_nats / 20
    assert isinstance(affine.calibration, RefitFigures)
    residuals = affine.calibration.relative_residual_held_out.q
    assert residuals.max == max(residuals.by_layer) > 0


@pytest.mark.full
def test_a_refit_that_stays_too_far_away_is_refused_with_its_figures(trained_dir: Path) -> None:
    with pytest.raises(
        UserError, match=r"KL divergence .* nats a token .*top-1 agreement .*expected at most 1e-06 \(calib"
    ):
        check(trained_dir, "affine", 1e-6)


@pytest.mark.full
def test_a_refit_is_not_measured_on_the_text_that_it_was_made_on(trained_dir: Path) -> None:
    with pytest.raises(UserError, match=r"fitted\.txt: shares \d+ paragraphs with .*on which q and k were fitted"):
        check(trained_dir, "affine", 1.0, text="fitted.txt")


@pytest.mark.full
@pytest.mark.parametrize(("calibration", "max_kl_nats"), [("affine", None), ("none", 1.0)])
def test_a_gate_goes_with_a_refit_and_with_nothing_else(
    trained_dir: Path, calibration: str, max_kl_nats: float | None
) -> None:
    with pytest.raises(UserError, match=rf"calibration is '{calibration}', and (none|one) is named by --calibration"):
        check(trained_dir, calibration, max_kl_nats)
