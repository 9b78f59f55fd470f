"""Refits q and k of every layer, weight and bias, so that Qwen2.5-VL's attention can do without Qwen3's q/k norms.

The stock architecture (`graft.architecture: qwen2_5_vl`) has no place for the norms but has biases. On a calibration text
this program finds, layer by layer and in closed form, the affine map that comes nearest to RMSNorm(W x) · γ for q and k
(scripts/graft/affine_refit.py has the maths, docs/graft.md the figures). Only one layer of the donor is in memory at a
time: the hidden states of all calibration tokens go through it, give its inputs and targets, and go on as the donor's own,
so that no layer is fitted to the errors of an earlier one. One sequence of eight is not fitted but measured.

After each layer its result and the hidden states are on disk, in WORK_DIR/SIGNATURE, where the signature covers all that
determines the result: a killed run goes on after its last whole layer, and other settings begin anew. The same text,
donor, settings, versions and number of threads give the same bytes on a CPU; another number of threads sums in another
order and may change last digits.

Memory: tokens x hidden_size x 4 bytes, a layer in `dtype`, and some matrices of hidden_size squared in float64; about
4 GB for Qwen3-8B with 65,536 tokens.

By hand, from the repository root:
  .venvs/train/bin/python scripts graft.calibrate --llm-dir resources/donors/LLM --work-dir work/NAME/calibration \
    --settings '{"text": "texts/calibration.txt", "max_tokens": 65536, "sequence_length": 512, "ridge": 1e-4,
                 "dtype": "float32", "device": "cpu"}' \
    --output results/NAME/calibration/q_k_refit.safetensors --report results/NAME/calibration/calibration.json
"""

import argparse
import json
import resource
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RotaryEmbedding

from scripts.common.errors import UserError, run_program
from scripts.common.files import read_json, sha256_of_file, write_json_atomically
from scripts.common.logger import log
from scripts.graft.affine_refit import Moments, Refit, condition_bound, factor, fitted_residual, refit
from scripts.graft.calibration_donor import (
    PROJECTIONS,
    TORCH_DTYPES,
    Donor,
    Target,
    check_finite,
    find,
    load_layer,
    open_donor,
    read_embeddings,
    target_of,
)
from scripts.graft.calibration_progress import Progress, assemble, donor_checksums, layer_shapes, signature_of
from scripts.graft.donor_configs import SAFETENSORS_DTYPES
from scripts.graft.texts import load_tokenizer, read_texts

assert TORCH_DTYPES.keys() == set(SAFETENSORS_DTYPES.values())


# Unknowns of one output are hidden_size + 1; benchmarks/results/affine.md shows what fewer tokens cost.
MIN_TOKENS_PER_UNKNOWN = 4

# One sequence of so many is measured, not fitted.
HELD_OUT_EVERY = 8

# Tokens that go through a layer at once: enough for matrix products at full speed, 100 MB of an 8B's widest activation.
NUM_TOKENS_AT_A_TIME = 2048


def tokenize(donor: Donor, settings: Mapping[str, Any]) -> torch.Tensor:
    """Sequences of equal length, [n, sequence_length], from the start of the text; raises UserError if it is too short."""
    path, length = Path(settings["text"]), settings["sequence_length"]
    tokenizer = load_tokenizer(donor.directory)
    text = "\n\n".join(read_texts(path, "calibration.text", tokenizer))
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0].long()
    sequences = ids[: min(len(ids), settings["max_tokens"]) // length * length].view(-1, length)
    num_fitted = sequences[~is_held_out(len(sequences))].numel()
    num_needed = MIN_TOKENS_PER_UNKNOWN * (donor.config.hidden_size + 1)
    if num_fitted < num_needed:
        raise UserError(
            f"{path}: {num_fitted} tokens to fit found (of {len(ids)} in the text, calibration.max_tokens "
            f"{settings['max_tokens']}, in sequences of {length}, one of {HELD_OUT_EVERY} held out); expected at least "
            f"{num_needed}, {MIN_TOKENS_PER_UNKNOWN} for each of hidden_size + 1 = {donor.config.hidden_size + 1} "
            "unknowns; name a longer text as calibration.text, or raise calibration.max_tokens"
        )
    return sequences


def is_held_out(num_sequences: int) -> torch.Tensor:
    """Which sequences are measured instead of fitted: [num_sequences], the first of every HELD_OUT_EVERY."""
    return torch.arange(num_sequences) % HELD_OUT_EVERY == 0


def batches(num_sequences: int, sequence_length: int) -> Iterator[slice]:
    """Slices of sequences with about NUM_TOKENS_AT_A_TIME tokens."""
    step = max(1, NUM_TOKENS_AT_A_TIME // sequence_length)
    for begin in range(0, num_sequences, step):
        yield slice(begin, begin + step)


def attention_inputs(layer: Qwen3DecoderLayer, hidden: torch.Tensor, device: str) -> torch.Tensor:
    """What q and k are computed from, float32: hidden states [n, length, hidden_size] after the layer's first norm."""
    return layer.input_layernorm(hidden.to(device, layer.input_layernorm.weight.dtype)).float()


def fit_layer(
    layer: Qwen3DecoderLayer, target: Target, hidden: torch.Tensor, ridge: float, dtype: torch.dtype, device: str
) -> tuple[dict[str, Refit], dict[str, Any]]:
    """q and k of one layer and the figures of the fit; `hidden` is [n, length, hidden_size], float32 on the CPU."""
    held_out = is_held_out(len(hidden))
    num_fitted = int((~held_out).sum()) * hidden.shape[1]
    slices = list(batches(*hidden.shape[:2]))
    total = torch.zeros(hidden.shape[-1], dtype=torch.float64, device=device)
    for rows in slices:
        total += attention_inputs(layer, hidden[rows], device)[~held_out[rows]].double().sum((0, 1))
    moments = Moments(total / num_fitted, target.size)
    for rows in slices:
        inputs = attention_inputs(layer, hidden[rows][~held_out[rows]], device).flatten(0, 1)
        moments.add(inputs, target.of(inputs))
    lower = factor(moments, ridge)
    head_dim = len(target.gains["q"])
    fits = {p: refit(moments, lower, target.columns[p], target.weights[p], head_dim, dtype) for p in PROJECTIONS}

    left = {p: torch.zeros((), dtype=torch.float64, device=device) for p in PROJECTIONS}
    spread = {p: torch.zeros((), dtype=torch.float64, device=device) for p in PROJECTIONS}
    for rows in slices:
        inputs = attention_inputs(layer, hidden[rows][held_out[rows]], device).flatten(0, 1)
        wanted = target.of(inputs)
        for p in PROJECTIONS:
            given = inputs @ fits[p].weight.float().T + fits[p].bias.float()
            left[p] += (wanted[:, target.columns[p]] - given).double().square().sum()
            spread[p] += (wanted[:, target.columns[p]] - moments.target_mean[target.columns[p]]).double().square().sum()
    figures: dict[str, Any] = {"condition_at_least": condition_bound(lower)}
    for p in PROJECTIONS:
        figures[p] = {
            "relative_residual": fitted_residual(moments, target.columns[p], fits[p]),
            "relative_residual_held_out": (left[p] / spread[p]).sqrt().item(),
        }
    return fits, figures


def advance(layer: Qwen3DecoderLayer, rotary: Qwen3RotaryEmbedding, hidden: torch.Tensor, device: str) -> None:
    """Replaces the hidden states, in place, by what the donor's own layer makes of them."""
    dtype = layer.input_layernorm.weight.dtype
    positions = torch.arange(hidden.shape[1], device=device)[None]
    for rows in batches(*hidden.shape[:2]):
        states = hidden[rows].to(device, dtype)
        hidden[rows] = layer(states, position_embeddings=rotary(states, positions)).float().cpu()


def peak_memory_bytes() -> int:
    """Greatest resident size of this process so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check_device(device: str) -> None:
    """Raises UserError when calibration.device is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "calibration.device: cuda found, but torch sees no GPU; start this where there is one, or write cpu"
        )


@torch.inference_mode()
def calibrate(donor: Donor, settings: Mapping[str, Any], work_dir: Path, output_path: Path, report_path: Path) -> None:
    """The whole calibration; raises UserError where the text is too short or a number is not finite."""
    started_at, device = time.monotonic(), settings["device"]
    check_device(device)
    dtype = find(donor, "model.layers.0.self_attn.q_proj.weight", layer_shapes(donor)["q_proj.weight"]).dtype
    sequences = tokenize(donor, settings)
    hidden_shape = (*sequences.shape, donor.config.hidden_size)
    log(
        f"{settings['text']}: {sequences.numel()} tokens in {len(sequences)} sequences; their hidden states need "
        f"{4 * torch.Size(hidden_shape).numel() / 1e9:.2f} GB"
    )
    basis = {
        "settings": dict(settings),
        "text_sha256": sha256_of_file(Path(settings["text"])),
        "donor_sha256": donor_checksums(donor),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    progress = Progress(work_dir / signature_of(basis))
    first = progress.next_layer()
    if first:
        log(f"{progress.directory}: going on with layer {first + 1} of {donor.num_layers}")
        hidden = progress.load_hidden(first, hidden_shape)
    else:
        hidden = read_embeddings(donor, sequences)
    rotary = Qwen3RotaryEmbedding(donor.config).to(device)
    for done, number in enumerate(range(first, donor.num_layers), start=1):
        layer_started_at = time.monotonic()
        layer = load_layer(donor, number, getattr(torch, settings["dtype"]), device)
        try:
            fits, figures = fit_layer(
                layer, target_of(donor, number, device), hidden, settings["ridge"], TORCH_DTYPES[dtype], device
            )
        except ValueError as error:
            raise UserError(
                f"{donor.directory}: layer {number}: {error}; expected finite activations and a ridge that makes the fit "
                f"solvable; raise calibration.ridge ({settings['ridge']})"
            ) from None
        for projection, fit in fits.items():
            where = f"{donor.directory}: layer {number}: the refitted {projection}_proj has"
            check_finite(fit.weight, where)
            check_finite(fit.bias, where)
        advance(layer, rotary, hidden, device)
        check_finite(hidden, f"{donor.directory}: layer {number} gives")
        figures |= {"wall_time_s": time.monotonic() - layer_started_at}
        progress.store(number, fits, figures, hidden)
        elapsed_s = time.monotonic() - started_at
        residuals = ", ".join(f"{p} {figures[p]['relative_residual_held_out']:.3f}" for p in PROJECTIONS)
        log(
            f"layer {number + 1} of {donor.num_layers}: relative residual on held-out tokens {residuals}; "
            f"{peak_memory_bytes() / 2**30:.1f} GiB; {elapsed_s / done * (donor.num_layers - first - done):.0f} s left"
        )
    assemble(donor, dtype, progress, output_path)
    held_out = is_held_out(len(sequences))
    report = basis | {
        "signature": progress.directory.name,
        "num_threads": torch.get_num_threads(),
        "refit_sha256": sha256_of_file(output_path),
        "num_tokens": sequences.numel(),
        "num_tokens_held_out": int(held_out.sum()) * sequences.shape[1],
        "peak_memory_bytes": peak_memory_bytes(),
        "layers": [read_json(progress.figures_path(number)) for number in range(donor.num_layers)],
    }
    write_json_atomically(report_path, report)
    shutil.rmtree(progress.directory)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--llm-dir", required=True, type=Path, help="the language donor (Qwen3)")
    parser.add_argument("--settings", required=True, type=json.loads, help="the config's `calibration`, as JSON")
    parser.add_argument("--work-dir", required=True, type=Path, help="where finished layers are kept until the end")
    parser.add_argument("--output", required=True, type=Path, help="the safetensors file to write")
    parser.add_argument("--report", required=True, type=Path, help="the JSON file with the figures to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    calibrate(open_donor(arguments.llm_dir), arguments.settings, arguments.work_dir, arguments.output, arguments.report)


if __name__ == "__main__":
    run_program(main)
