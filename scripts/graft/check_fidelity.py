"""Measures what the graft kept of its language donor: the same text through both, logit by logit.

A graft that lost a tensor still loads and still answers; it only answers worse, and hours of training hide why. So the
graft is read back and compared with its ledger, and loaded as every later step loads it, nothing may be missing, left over
or initialised again, and then

  qwen3          its text logits must equal the donor's bit for bit, left-padded batch included: nothing was lost;
  qwen2_5_vl     has no place for the donor's q/k norms: the loss is measured (KL divergence, perplexity, how often the
                 likeliest token is the same) and printed. Where q and k were refitted (`graft.calibration: affine`), a
                 KL divergence above `--max-kl-nats` is an error, and so is text that they were fitted on.

Random pictures are shown to the graft too: their tokens must have positions of their own on each axis (m-RoPE), and the
logits must be finite and must change with the picture.

One model is in memory at a time, 33 GB for 8 billion parameters in float32 and half of that in bfloat16 (`dtype`; logits
must be equal in either); the donor's logits, `max_tokens` x vocabulary numbers, are kept until the graft's are there.

The text is a plain file, whose paragraphs are read one by one, or a .jsonl of training rows, which the chat template
renders without their pictures. Perplexity means something only on text like the donor's own.

By hand: .venv/bin/python scripts graft.check_fidelity --config config/demo.yaml
"""

import argparse
import gc
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from scripts.common.errors import UserError, run_program
from scripts.common.files import sha256_of_file
from scripts.common.input_files import read_section
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import read_sealed
from scripts.common.settings import json_settings
from scripts.donors.checksums import check_recorded_digests
from scripts.donors.library_errors import in_one_line
from scripts.donors.model_files import file_digests, joined_sha256
from scripts.donors.safetensors_files import read_checkpoint
from scripts.graft.calibration_report import read_calibration
from scripts.graft.fidelity import (
    DroppedTensors,
    Fidelity,
    Gate,
    NoRefit,
    check_gate,
    describe,
    refit_figures,
    write_fidelity,
)
from scripts.graft.ledger import LEDGER_NAME
from scripts.graft.logit_comparison import compare
from scripts.graft.own_code import is_trusted, require_own_code
from scripts.graft.picture_check import check_picture
from scripts.graft.settings import SETTINGS_NAME, Architecture, FidelitySettings, SavedSettings
from scripts.graft.texts import load_tokenizer, read_texts
from scripts.graft.verification import check_ledger

ARCHITECTURE_OF_MODEL_TYPE: dict[str, Architecture] = {"qwen2_5_vl_qwen3": "qwen3", "qwen2_5_vl": "qwen2_5_vl"}
MAX_TOKENS_OF_PADDED_TEXT = 32
MAX_REASON_CHARACTERS = 300

MIN_CHARACTERS_OF_SHARED_TEXT = 40  # shorter paragraphs, such as headings, are the same by chance


def tokenize(text_path: Path, graft_dir: Path, max_tokens: int) -> list[torch.Tensor]:
    """Token ids of the texts, one tensor each, `max_tokens` in all; the last one may be cut off."""
    tokenizer = load_tokenizer(graft_dir)
    texts: list[torch.Tensor] = []
    num_left = max_tokens
    for text in read_texts(text_path, "fidelity.text", tokenizer):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[0, :num_left]
        if len(ids) < 2:  # nothing is predicted from a single token
            continue
        texts.append(ids)
        num_left -= len(ids)
        if num_left < 2:
            break
    if not texts:
        raise UserError(f"{text_path}: no text found; expected paragraphs or rows; name another file as fidelity.text")
    return texts


def check_held_out(text_path: Path, gate: Gate, tokenizer: Any) -> None:
    """Raises UserError when the text shares a paragraph with that on which q and k were fitted."""
    fitted_path = Path(gate.calibration.settings.text)
    fitted, measured = (
        {text for text in read_texts(path, key, tokenizer) if len(text) >= MIN_CHARACTERS_OF_SHARED_TEXT}
        for path, key in ((fitted_path, "calibration.text"), (text_path, "fidelity.text"))
    )
    if shared := sorted(fitted & measured):
        raise UserError(
            f"{text_path}: shares {len(shared)} paragraphs with {fitted_path}, on which q and k were fitted, one of them "
            f"{shared[0][:MIN_CHARACTERS_OF_SHARED_TEXT]!r}; expected a text that was not; name another one as fidelity.text"
        )


def left_padded(texts: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Two texts of different length as one batch, padded on the left as for generating."""
    by_length = sorted((ids[:MAX_TOKENS_OF_PADDED_TEXT] for ids in texts), key=len)
    short, long = by_length[0], by_length[-1]
    if len(short) == len(long):
        short = short[: max(1, len(short) // 2)]
    num_padding = len(long) - len(short)
    mask = torch.ones(2, len(long), dtype=torch.long)
    mask[0, :num_padding] = 0
    return {
        "input_ids": torch.stack([torch.cat([long.new_zeros(num_padding), short]), long]),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
    }


def load(auto_class: Any, directory: Path, dtype: str, trust: bool) -> Any:
    """Loads a model; raises UserError unless every tensor of the files found its place and every place its tensor."""
    try:
        model, info = auto_class.from_pretrained(
            directory.absolute(),
            dtype=getattr(torch, dtype),
            trust_remote_code=trust,
            output_loading_info=True,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        reason = in_one_line(error, MAX_REASON_CHARACTERS)
        raise UserError(
            f"{directory}: transformers cannot load it ({reason}); expected a checkpoint that it can; see its config.json, and "
            "fetch or make it again"
        ) from error
    if faults := {kind: sorted(map(str, names)) for kind, names in info.items() if names}:
        kind, names = next(iter(faults.items()))
        raise UserError(
            f"{directory}: {kind} when loaded: {names[0]} ({len(names)} such; also {sorted(faults.keys() - {kind})}); "
            "expected every tensor of the files to find its place and no place to be left empty; make the checkpoint again"
        )
    return model.eval(), {kind: [] for kind in info}


def text_logits(model: Any, texts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The logits of each text, and last those of the left-padded batch without its padding."""
    logits = []
    with torch.inference_mode():
        for number, ids in enumerate(texts, start=1):
            logits.append(model(input_ids=ids[None]).logits[0])
            if number % 10 == 0:
                log(f"text {number} of {len(texts)}")
        batch = left_padded(texts)
        logits.append(model(**batch).logits[batch["attention_mask"].bool()])
    return logits


def dropped_tensors(llm_dir: Path, graft_dir: Path) -> DroppedTensors:
    """The tensors of the language donor that the graft does not have."""
    graft_names = read_checkpoint(graft_dir).keys()
    dropped = [tensor for name, tensor in read_checkpoint(llm_dir).items() if name not in graft_names]
    return DroppedTensors(
        num_tensors=len(dropped),
        num_parameters=sum(math.prod(tensor.shape) for tensor in dropped),
        kinds=dict(sorted(Counter(".".join(tensor.name.split(".")[-3:]) for tensor in dropped).items())),
    )


def check_finite(logits: Sequence[torch.Tensor], directory: Path) -> None:
    """Raises UserError when a model answers NaN or infinity."""
    for number, values in enumerate(logits, start=1):
        if not values.isfinite().all():
            raise UserError(
                f"{directory}: the logits of text {number} are not finite; expected finite numbers; its weights are "
                "damaged, fetch or make them again"
            )


def architecture_of(graft_dir: Path) -> Architecture:
    """The architecture that the graft's config.json names."""
    model_type = read_section(graft_dir / "config.json").get("model_type")
    if model_type not in ARCHITECTURE_OF_MODEL_TYPE:
        raise UserError(
            f"{graft_dir / 'config.json'}: model_type {model_type!r} found, expected one of "
            f"{', '.join(ARCHITECTURE_OF_MODEL_TYPE)}; name the directory of a graft"
        )
    return ARCHITECTURE_OF_MODEL_TYPE[model_type]


def check_is_as_made(graft_dir: Path, gate: Gate | None) -> None:
    """Raises UserError where a file beside the weights was edited, or unless a refitted graft, and no other, has its report."""
    path = graft_dir / SETTINGS_NAME
    saved = read_sealed(SavedSettings, path)
    for name, expected in saved.files.items():
        if (found := sha256_of_file(graft_dir / name)) != expected:
            raise UserError(
                f"{graft_dir / name}: sha256 {found} found, {expected} expected by {SETTINGS_NAME}: it was edited since the "
                "graft was made; bring it back, or make the graft again"
            )
    settings = saved.graft
    if settings.is_refitted != (gate is not None):
        found = "none" if gate is None else "one"
        raise UserError(
            f"{path}: calibration is {settings.calibration!r}, and {found} is named by --calibration; expected the "
            "report of calibrate.py for affine and for nothing else; add or remove --calibration and --max-kl-nats"
        )


def check_fidelity(
    graft_dir: Path,
    llm_dir: Path,
    settings: FidelitySettings,
    gate: Gate | None = None,
    llm_manifest_path: Path | None = None,
) -> Fidelity:
    """The whole comparison; raises UserError where the graft must equal its donor, or be near it, and does not."""
    architecture, dtype, text_path = architecture_of(graft_dir), settings.dtype, Path(settings.text)
    check_is_as_made(graft_dir, gate)
    log(f"{graft_dir}: comparing its tensors with {LEDGER_NAME}")
    require_own_code(graft_dir)
    check_ledger(graft_dir)
    graft_sha256 = joined_sha256(file_digests(graft_dir))
    require_own_code(llm_dir, with_trust=False)
    if llm_manifest_path:
        check_recorded_digests(llm_dir, {}, llm_manifest_path)
    if gate:
        check_held_out(text_path, gate, load_tokenizer(graft_dir))
    texts = tokenize(text_path, graft_dir, settings.max_tokens)
    log(f"{text_path}: {len(texts)} texts, {sum(map(len, texts))} tokens")

    log(f"{llm_dir}: loading the language donor in {dtype}")
    model, _ = load(AutoModelForCausalLM, llm_dir, dtype, trust=False)
    donor_logits = text_logits(model, texts)
    check_finite(donor_logits, llm_dir)
    del model
    gc.collect()

    log(f"{graft_dir}: loading the graft in {dtype}")
    model, loading_info = load(AutoModelForImageTextToText, graft_dir, dtype, trust=is_trusted(graft_dir))
    graft_logits = text_logits(model, texts)
    check_finite(graft_logits, graft_dir)
    if (found := graft_logits[0].shape[-1]) != (expected := donor_logits[0].shape[-1]):
        raise UserError(
            f"{graft_dir / 'config.json'}: a vocabulary of {found} found, {expected} expected as in {llm_dir}; "
            "make the graft again from this donor"
        )
    comparison = compare(texts, donor_logits, graft_logits)
    if architecture == "qwen3" and comparison.first_difference:
        raise UserError(
            f"{graft_dir}: text logits differ from those of {llm_dir}, first in {comparison.first_difference}; greatest "
            f"difference {comparison.max_abs_difference:.3g}; expected equality bit for bit, since this architecture "
            "computes text as the donor does, so a tensor or a setting (rope, eps, head sizes) is not the donor's; make "
            "the graft again, and check that it was made from this donor"
        )
    fidelity = Fidelity(
        architecture=architecture,
        calibration=refit_figures(gate) if gate else NoRefit(),
        dtype=dtype,
        num_texts=len(texts),
        bit_equal=comparison.bit_equal,
        num_tokens=comparison.num_tokens,
        max_abs_difference=comparison.max_abs_difference,
        first_difference=comparison.first_difference,
        kl_mean_nats=comparison.kl_mean_nats,
        perplexity_donor=comparison.perplexity_donor,
        perplexity_graft=comparison.perplexity_graft,
        top1_agreement=comparison.top1_agreement,
        dropped=dropped_tensors(llm_dir, graft_dir),
        picture=check_picture(model, graft_dir),
        loading_info=loading_info,
        text=str(text_path),
        text_sha256=sha256_of_file(text_path),
        graft_sha256=graft_sha256,
        ledger_sha256=sha256_of_file(graft_dir / LEDGER_NAME),
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )
    log(describe(fidelity))
    check_gate(fidelity, graft_dir)
    return fidelity


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--graft-dir", required=True, type=Path, help="the grafted checkpoint")
    parser.add_argument("--llm-dir", required=True, type=Path, help="its language donor")
    parser.add_argument("--llm-manifest", type=Path, help="the donor's manifest, which its files are compared with")
    parser.add_argument(
        "--settings",
        required=True,
        type=json_settings(FidelitySettings, "fidelity"),
        help="the config's `fidelity`, as JSON",
    )
    parser.add_argument("--output", required=True, type=Path, help="the JSON file to write")
    parser.add_argument("--calibration", type=Path, help="of a refitted graft: the report of calibrate.py")
    parser.add_argument(
        "--max-kl-nats", type=float, help="of a refitted graft: the greatest KL divergence, nats a token"
    )
    return parser.parse_args()


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    arguments = parse_arguments()
    if (arguments.calibration is None) != (arguments.max_kl_nats is None):
        raise UserError(
            "--calibration, --max-kl-nats: one of them is missing; a refitted graft needs both, others neither"
        )
    gate = None
    if arguments.calibration:
        gate = Gate(read_calibration(arguments.calibration), arguments.max_kl_nats)
    with owned(arguments.output, inputs=[arguments.llm_dir, Path(arguments.settings.text)]):
        fidelity = check_fidelity(
            arguments.graft_dir, arguments.llm_dir, arguments.settings, gate, arguments.llm_manifest
        )
        write_fidelity(arguments.output, fidelity)


if __name__ == "__main__":
    run_program(main)
