"""What the graft kept of the language donor (fidelity.json): the figures, the gate, and how they are read. Without torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.common.reading import require


@dataclass(frozen=True)
class Gate:
    """What a refitted graft is held against: the report of its calibration, and the greatest KL divergence allowed."""

    calibration: dict[str, Any]
    max_kl_nats: float


@dataclass(frozen=True)
class Comparison:
    """Sums over the tokens of all texts, and the first place where the logits differ."""

    num_tokens: int
    num_predictions: int
    kl_sum_nats: float
    num_top1_equal: int
    donor_nll_nats: float
    graft_nll_nats: float
    max_abs_difference: float
    first_difference: str | None


def metrics(comparison: Comparison) -> dict[str, Any]:
    """The figures of fidelity.json that come from the logits."""
    return {
        "bit_equal": comparison.first_difference is None,
        "num_tokens": comparison.num_tokens,
        "max_abs_difference": comparison.max_abs_difference,
        "first_difference": comparison.first_difference,
        "kl_mean_nats": comparison.kl_sum_nats / comparison.num_tokens,
        "perplexity_donor": math.exp(comparison.donor_nll_nats / comparison.num_predictions),
        "perplexity_graft": math.exp(comparison.graft_nll_nats / comparison.num_predictions),
        "top1_agreement": comparison.num_top1_equal / comparison.num_tokens,
    }


def calibration_figures(gate: Gate) -> dict[str, Any]:
    """What fidelity.json says of the refit: how it was made, and its residuals over the layers."""
    report = gate.calibration
    residuals = {
        projection: [layer[projection]["relative_residual_held_out"] for layer in report["layers"]]
        for projection in ("q", "k")
    }
    return {
        "kind": "affine",
        "max_kl_nats": gate.max_kl_nats,
        **{
            key: report[key] for key in ("settings", "text_sha256", "num_tokens", "num_tokens_held_out", "refit_sha256")
        },
        "relative_residual_held_out": {
            projection: {
                "mean": sum(values) / len(values),
                "max": max(values),
                "layer_of_max": values.index(max(values)),
                "by_layer": values,
            }
            for projection, values in residuals.items()
        },
    }


def check_gate(result: dict[str, Any], gate: Gate, graft_dir: Path) -> None:
    """Raises UserError, with all numbers, when a refitted graft is further from its donor than allowed."""
    if result["kl_mean_nats"] <= gate.max_kl_nats:
        return
    worst = {p: figures["max"] for p, figures in result["calibration"]["relative_residual_held_out"].items()}
    raise UserError(
        f"{graft_dir}: KL divergence from the language donor is {result['kl_mean_nats']:.4g} nats a token on {result['text']} "
        f"({result['num_tokens']} tokens; perplexity {result['perplexity_donor']:.4g} -> {result['perplexity_graft']:.4g}, top-1 "
        f"agreement {result['top1_agreement']:.1%}; greatest relative residual of q {worst['q']:.3f}, of k {worst['k']:.3f}); "
        f"expected at most {gate.max_kl_nats:g} (calibration.max_kl_nats); calibrate on more text or on text more like the "
        "donor's (calibration.text, calibration.max_tokens), or set graft.architecture: qwen3, which loses nothing"
    )


def describe(result: dict[str, Any]) -> str:
    """What was kept and what was lost, in a few plain lines."""
    if result["bit_equal"]:
        return (
            f"nothing was lost: {result['num_tokens']} tokens of {result['num_texts']} texts, left-padded ones too, give "
            f"the language donor's logits bit for bit in {result['dtype']} (perplexity {result['perplexity_donor']:.4f})"
        )
    dropped = result["dropped"]
    kinds = ", ".join(f"{number} {kind}" for kind, number in dropped["kinds"].items()) or "none"
    calibration = result["calibration"]
    refitted = (
        f"  q and k were refitted on {calibration['settings']['text']}\n" if calibration["kind"] == "affine" else ""
    )
    return (
        f"lost: {dropped['num_tensors']} tensors of the language donor ({kinds}; {dropped['num_parameters']} parameters)\n"
        f"{refitted}"
        f"  KL divergence from the donor {result['kl_mean_nats']:.4g} nats a token (0 if nothing were lost)\n"
        f"  perplexity {result['perplexity_donor']:.4g} -> {result['perplexity_graft']:.4g}\n"
        f"  the likeliest token is the donor's for {result['top1_agreement']:.1%} of {result['num_tokens']} tokens\n"
        "  `graft.architecture: qwen3` keeps all of it"
    )


@dataclass(frozen=True)
class Fidelity:
    """How the graft compares with its language donor on text."""

    bit_equal: bool
    values: dict[str, Any]


def read_fidelity(path: Path) -> Fidelity:
    """What the fidelity check measured."""
    value = read_json(path)
    bit_equal = require(value, "bit_equal", bool, str(path))
    return Fidelity(bit_equal, {key: found for key, found in value.items() if key != "bit_equal"})
