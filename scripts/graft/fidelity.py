"""fidelity.json: what the graft kept of its language donor. Its figures, the gate on them, and their words. Without torch.

The report and the model card read it where torch is not installed; check_fidelity.py writes it.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from scripts.common.errors import UserError
from scripts.common.reading import read_sealed, write_sealed
from scripts.graft.calibration_report import CalibrationReport
from scripts.graft.settings import Architecture, CalibrationSettings

FIDELITY_NAME = "fidelity.json"


@dataclass(frozen=True)
class ResidualFigures:
    """Relative residuals of one projection on held-out tokens, over the layers."""

    mean: float
    max: float
    layer_of_max: int
    by_layer: list[float]


@dataclass(frozen=True)
class Residuals:
    """Of both projections."""

    q: ResidualFigures
    k: ResidualFigures


@dataclass(frozen=True)
class RefitFigures:
    """How q and k were refitted, and the greatest KL divergence that is allowed."""

    kind: Literal["affine"]
    max_kl_nats: float
    settings: CalibrationSettings
    text_sha256: str
    num_tokens: int
    num_tokens_held_out: int
    refit_sha256: str
    relative_residual_held_out: Residuals


@dataclass(frozen=True)
class NoRefit:
    """q and k are the donor's."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True)
class DroppedTensors:
    """Tensors of the language donor that the graft does not have; `kinds` counts them by the last parts of their names."""

    num_tensors: int
    num_parameters: int
    kinds: dict[str, int]


@dataclass(frozen=True)
class PictureFigures:
    """How the graft treats a picture."""

    num_tokens: int
    finite: bool
    max_logit_change_between_pictures: float
    mrope_axes_differ: bool


@dataclass(frozen=True)
class Fidelity:
    """fidelity.json; `loading_info` has an empty list for each kind of problem that transformers reports."""

    architecture: Architecture
    calibration: NoRefit | RefitFigures
    dtype: str
    num_texts: int
    bit_equal: bool
    num_tokens: int
    max_abs_difference: float
    first_difference: str | None
    kl_mean_nats: float
    perplexity_donor: float
    perplexity_graft: float
    top1_agreement: float
    dropped: DroppedTensors
    picture: PictureFigures
    loading_info: dict[str, list[str]]
    text: str
    text_sha256: str
    graft_sha256: str  # over the files of the graft that was measured (scripts/donors/model_files.py)
    ledger_sha256: str
    versions: dict[str, str]


def write_fidelity(path: Path, fidelity: Fidelity) -> None:
    write_sealed(path, asdict(fidelity))


def read_fidelity(path: Path) -> Fidelity:
    """The figures as they were written; UserError where the file was edited since."""
    return read_sealed(Fidelity, path)


@dataclass(frozen=True)
class Gate:
    """What a refitted graft is compared with: the report of its calibration, and the greatest KL divergence allowed."""

    calibration: CalibrationReport
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

    @property
    def bit_equal(self) -> bool:
        return self.first_difference is None

    @property
    def kl_mean_nats(self) -> float:
        return self.kl_sum_nats / self.num_tokens

    @property
    def perplexity_donor(self) -> float:
        return math.exp(self.donor_nll_nats / self.num_predictions)

    @property
    def perplexity_graft(self) -> float:
        return math.exp(self.graft_nll_nats / self.num_predictions)

    @property
    def top1_agreement(self) -> float:
        return self.num_top1_equal / self.num_tokens


def _over_layers(values: list[float]) -> ResidualFigures:
    greatest = max(values)
    return ResidualFigures(sum(values) / len(values), greatest, values.index(greatest), values)


def refit_figures(gate: Gate) -> RefitFigures:
    """The refit's part of fidelity.json."""
    report = gate.calibration
    layers = report.layers
    return RefitFigures(
        kind="affine",
        max_kl_nats=gate.max_kl_nats,
        settings=report.settings,
        text_sha256=report.text_sha256,
        num_tokens=report.num_tokens,
        num_tokens_held_out=report.num_tokens_held_out,
        refit_sha256=report.refit_sha256,
        relative_residual_held_out=Residuals(
            q=_over_layers([layer.q.relative_residual_held_out for layer in layers]),
            k=_over_layers([layer.k.relative_residual_held_out for layer in layers]),
        ),
    )


def check_gate(fidelity: Fidelity, graft_dir: Path) -> None:
    """Raises UserError, with all figures, when a refitted graft is further from its donor than allowed."""
    refit = fidelity.calibration
    if isinstance(refit, NoRefit) or fidelity.kl_mean_nats <= refit.max_kl_nats:
        return
    residuals = refit.relative_residual_held_out
    raise UserError(
        f"{graft_dir}: KL divergence from the language donor is {fidelity.kl_mean_nats:.4g} nats a token on {fidelity.text} "
        f"({fidelity.num_tokens} tokens; perplexity {fidelity.perplexity_donor:.4g} -> {fidelity.perplexity_graft:.4g}, "
        f"top-1 agreement {fidelity.top1_agreement:.1%}; greatest relative residual of q {residuals.q.max:.3f}, "
        f"of k {residuals.k.max:.3f}); expected at most {refit.max_kl_nats:g} (calibration.max_kl_nats); calibrate on more "
        "text or on text more like the donor's (calibration.text, calibration.max_tokens), or set "
        "graft.architecture: qwen3, which loses nothing"
    )


def describe(fidelity: Fidelity) -> str:
    """What was kept and what was lost, in a few plain lines."""
    if fidelity.bit_equal:
        return (
            f"nothing was lost: {fidelity.num_tokens} tokens of {fidelity.num_texts} texts, left-padded ones too, give "
            f"the language donor's logits bit for bit in {fidelity.dtype} (perplexity {fidelity.perplexity_donor:.4f})"
        )
    dropped, refit = fidelity.dropped, fidelity.calibration
    kinds = ", ".join(f"{number} {kind}" for kind, number in dropped.kinds.items()) or "none"
    refitted = f"  q and k were refitted on {refit.settings.text}\n" if isinstance(refit, RefitFigures) else ""
    return (
        f"lost: {dropped.num_tensors} tensors of the language donor ({kinds}; {dropped.num_parameters} parameters)\n"
        f"{refitted}"
        f"  KL divergence from the donor {fidelity.kl_mean_nats:.4g} nats a token (0 if nothing were lost)\n"
        f"  perplexity {fidelity.perplexity_donor:.4g} -> {fidelity.perplexity_graft:.4g}\n"
        f"  the likeliest token is the donor's for {fidelity.top1_agreement:.1%} of {fidelity.num_tokens} tokens\n"
        "  `graft.architecture: qwen3` keeps all of it"
    )
