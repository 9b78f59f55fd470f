"""Refits q and k of every layer, weight and bias, so that Qwen2.5-VL's attention can do without Qwen3's q/k norms.

The stock architecture (`graft.architecture: qwen2_5_vl`) has no place for the norms but has biases. On a calibration text
this program finds, layer by layer and in closed form, the affine map that comes nearest to RMSNorm(W x) · γ for q and k
(scripts/graft/affine_refit.py has the maths, docs/graft.md the figures). Only one layer of the donor is in memory at a
time: the hidden states of all calibration tokens go through it, give its inputs and targets, and go on as the donor's own,
so that no layer is fitted to the errors of an earlier one. One sequence of eight is not fitted but measured.

After each layer its result and the hidden states are on disk, in WORK_DIR/SIGNATURE, where the signature covers all that
determines the result: a killed run goes on after its last whole layer, and a run with other settings begins again. The same text,
donor, settings, versions and number of threads give the same bytes on a CPU; another number of threads sums in another
order and may change last digits.

Memory: tokens x hidden_size x 4 bytes, a layer in `dtype`, and some matrices of hidden_size squared in float64; about
4 GB for Qwen3-8B with 65,536 tokens.

By hand: .venv/bin/python scripts graft.calibrate --config CONFIG, of a configuration with `graft.calibration: affine`
"""

import argparse
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RotaryEmbedding

from scripts.common.errors import UserError, run_program
from scripts.common.files import sha256_of_file
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.settings import json_settings
from scripts.common.units import duration, size
from scripts.donors.checksums import check_recorded_digests
from scripts.graft.calibration_donor import (
    TORCH_DTYPES,
    LanguageDonor,
    check_finite,
    load_layer,
    open_donor,
    q_k_dtype,
    read_embeddings,
    target_of,
)
from scripts.graft.calibration_progress import Progress, assemble, donor_checksums, signature_of
from scripts.graft.calibration_report import CalibrationReport, LayerFigures, RefitBasis, write_calibration
from scripts.graft.layer_fit import HELD_OUT_EVERY, LayerFit, advance, fit_layer, is_held_out
from scripts.graft.settings import CalibrationSettings
from scripts.graft.texts import load_tokenizer, read_texts

# Unknowns of one output are hidden_size + 1; benchmarks/results/affine.md shows what fewer tokens cost.
MIN_TOKENS_PER_UNKNOWN = 4


def tokenize(donor: LanguageDonor, settings: CalibrationSettings) -> torch.Tensor:
    """Sequences of equal length, [n, sequence_length], from the start of the text; raises UserError if it is too short."""
    path, length = Path(settings.text), settings.sequence_length
    tokenizer = load_tokenizer(donor.directory)
    text = "\n\n".join(read_texts(path, "calibration.text", tokenizer))
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0].long()
    sequences = ids[: min(len(ids), settings.max_tokens) // length * length].view(-1, length)
    num_fitted = sequences[~is_held_out(len(sequences))].numel()
    num_needed = MIN_TOKENS_PER_UNKNOWN * (donor.config.hidden_size + 1)
    if num_fitted < num_needed:
        raise UserError(
            f"{path}: {num_fitted} tokens to fit found (of {len(ids)} in the text, calibration.max_tokens "
            f"{settings.max_tokens}, in sequences of {length}, one of {HELD_OUT_EVERY} held out); expected at least "
            f"{num_needed}, {MIN_TOKENS_PER_UNKNOWN} for each of hidden_size + 1 = {donor.config.hidden_size + 1} "
            "unknowns; name a longer text as calibration.text, or raise calibration.max_tokens"
        )
    return sequences


def peak_memory_bytes() -> int:
    """Greatest resident size of this process so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check_device(device: str) -> None:
    """Raises UserError when calibration.device is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "calibration.device: cuda found, but torch sees no GPU; start this where there is one, or write cpu"
        )


@dataclass(frozen=True)
class CalibrationPaths:
    """Where finished layers are kept until the end, the two files that are written, and the donor's manifest."""

    work_dir: Path
    output: Path
    report: Path
    llm_manifest: Path | None = None


@torch.inference_mode()
def calibrate(donor: LanguageDonor, settings: CalibrationSettings, paths: CalibrationPaths) -> None:
    """The whole calibration; raises UserError where the text is too short or a number is not finite."""
    check_device(settings.device)
    sequences = tokenize(donor, settings)
    hidden_shape = (*sequences.shape, donor.config.hidden_size)
    log(
        f"{settings.text}: {sequences.numel()} tokens in {len(sequences)} sequences; their hidden states need "
        f"{size(4 * torch.Size(hidden_shape).numel())}"
    )
    basis = RefitBasis(
        settings=settings,
        text_sha256=sha256_of_file(Path(settings.text)),
        donor_sha256=donor_checksums(donor),
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )
    if paths.llm_manifest:
        check_recorded_digests(donor.directory, basis.donor_sha256, paths.llm_manifest)
    progress = Progress(paths.work_dir / signature_of(basis))
    first = progress.next_layer()
    if first < donor.num_layers:
        if first:
            log(f"{progress.directory}: going on with layer {first + 1} of {donor.num_layers}")
        hidden = progress.load_hidden(first, hidden_shape) if first else read_embeddings(donor, sequences)
        refit_layers(donor, settings, progress, hidden)
    else:
        log(f"{progress.directory}: all {donor.num_layers} layers are done")
    assemble(donor, progress, paths.output)
    report = CalibrationReport(
        settings=basis.settings,
        text_sha256=basis.text_sha256,
        donor_sha256=basis.donor_sha256,
        versions=basis.versions,
        signature=progress.directory.name,
        num_threads=torch.get_num_threads(),
        refit_sha256=sha256_of_file(paths.output),
        num_tokens=sequences.numel(),
        num_tokens_held_out=int(is_held_out(len(sequences)).sum()) * sequences.shape[1],
        peak_memory_bytes=peak_memory_bytes(),
        layers=[progress.read_figures(number) for number in range(donor.num_layers)],
    )
    write_calibration(paths.report, report)
    shutil.rmtree(progress.directory)


def refit_layers(donor: LanguageDonor, settings: CalibrationSettings, progress: Progress, hidden: torch.Tensor) -> None:
    """Refits layer after layer, each stored when it is done; `hidden` are the hidden states before the first of them."""
    started_at, device = time.monotonic(), settings.device
    rotary = Qwen3RotaryEmbedding(donor.config).to(device)
    first = progress.next_layer()
    for done, number in enumerate(range(first, donor.num_layers), start=1):
        layer_started_at = time.monotonic()
        layer = load_layer(donor, number, getattr(torch, settings.dtype), device)
        fit = refit_layer(donor, number, layer, hidden, settings)
        advance(layer, rotary, hidden, device)
        check_finite(hidden, f"{donor.directory}: layer {number} gives")
        figures = LayerFigures(
            fit.condition_at_least, fit.figures["q"], fit.figures["k"], time.monotonic() - layer_started_at
        )
        progress.store(number, fit.fits, figures, hidden)
        left_s = (time.monotonic() - started_at) / done * (donor.num_layers - first - done)
        log(
            f"layer {number + 1} of {donor.num_layers}: relative residual on held-out tokens "
            f"q {figures.q.relative_residual_held_out:.3f}, k {figures.k.relative_residual_held_out:.3f}; "
            f"{size(peak_memory_bytes())} of memory; {duration(left_s)} left"
        )


def refit_layer(
    donor: LanguageDonor, number: int, layer: Qwen3DecoderLayer, hidden: torch.Tensor, settings: CalibrationSettings
) -> LayerFit:
    """The fit of one layer; raises UserError where it cannot be solved or is not finite."""
    target = target_of(donor, number, settings.device)
    try:
        fit = fit_layer(layer, target, hidden, settings.ridge, TORCH_DTYPES[q_k_dtype(donor)], settings.device)
    except ValueError as error:
        raise UserError(
            f"{donor.directory}: layer {number}: {error}; expected finite activations and a ridge that makes the fit "
            f"solvable; raise calibration.ridge ({settings.ridge})"
        ) from None
    for projection, refit in fit.fits.items():
        where = f"{donor.directory}: layer {number}: the refitted {projection}_proj has"
        check_finite(refit.weight, where)
        check_finite(refit.bias, where)
    return fit


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--llm-dir", required=True, type=Path, help="the language donor (Qwen3)")
    parser.add_argument("--llm-manifest", type=Path, help="its manifest, which its files are compared with")
    parser.add_argument(
        "--settings",
        required=True,
        type=json_settings(CalibrationSettings, "calibration"),
        help="the config's `calibration` without max_kl_nats, as JSON",
    )
    parser.add_argument("--work-dir", required=True, type=Path, help="where finished layers are kept until the end")
    parser.add_argument("--output", required=True, type=Path, help="the safetensors file to write")
    parser.add_argument("--report", required=True, type=Path, help="the JSON file with the figures to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    paths = CalibrationPaths(arguments.work_dir, arguments.output, arguments.report, arguments.llm_manifest)
    with owned(paths.output, paths.report):
        calibrate(open_donor(arguments.llm_dir), arguments.settings, paths)


if __name__ == "__main__":
    run_program(main)
