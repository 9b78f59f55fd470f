"""Texts of the page: models, trained modules, values."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from scripts.evaluate.model_names import CONTROLS, base_of, control_of, is_control
from scripts.graft.fidelity import Fidelity
from scripts.report import numbers
from scripts.report.findings import NOT_MADE_HERE
from scripts.report.hidden_secrets import without_secrets
from scripts.train.metrics import Metrics

# The figures of fidelity.json that a reader looks for; the others are folded below them.
FIDELITY_LABELS = {
    "architecture": "architecture",
    "dtype": "computed in",
    "num_tokens": "tokens compared",
    "max_abs_difference": "largest difference of a logit",
    "kl_mean_nats": "KL divergence to the donor, nats per token",
    "top1_agreement": "same likeliest token as the donor",
    "perplexity_donor": "perplexity of the donor",
    "perplexity_graft": "perplexity of the graft",
    "dropped.num_tensors": "tensors of the donor left out",
    "picture.max_logit_change_between_pictures": "largest change of a logit with the picture",
}
SHARES = ("top1_agreement",)


def describe_models(models: Sequence[str], stages: Sequence[Metrics]) -> dict[str, str]:
    """What each row of the score table is, in a few words."""
    trained = {metrics.stage: trained_modules(metrics) for metrics in stages}
    words = {}
    for model in models:
        base = base_of(model)
        if is_control(model):
            words[model] = f"{base}, {CONTROLS[control_of(model)]}"
        elif base in NOT_MADE_HERE:
            words[model] = "the vision donor itself"
        elif base == "graft":
            words[model] = "before any training"
        elif base in trained:
            words[model] = "trained: " + (", ".join(trained[base]) or "nothing")
        else:
            words[model] = ""
    return words


def trained_modules(metrics: Metrics) -> list[str]:
    return [module.replace("_", " ") for module, number in metrics.num_trainable_parameters.items() if number]


def _leaves(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys as `a.b.c` with their values, in order; an empty section is none."""
    if isinstance(value, dict):
        return [row for key, part in value.items() for row in _leaves(part, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, value)]


def flatten(value: Any) -> list[tuple[str, str]]:
    """Nested keys as `a.b.c` with their values in words."""
    return [(key, _in_words(key, found)) for key, found in _leaves(without_secrets(value))]


def _in_words(key: str, value: Any) -> str:
    """A list on one line, a command as it would be typed; yes, no or none."""
    if isinstance(value, list):
        if key.endswith("command"):
            return shlex.join(str(word) for word in value)
        return ", ".join(str(part) for part in value) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def fidelity_rows(fidelity: Fidelity) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The values of fidelity.json with their labels: those that a reader looks for, and all others."""
    found: dict[str, Any] = dict(_leaves(asdict(fidelity)))
    del found["bit_equal"]  # a sentence of its own
    main = [(label, _figure(key, found[key])) for key, label in FIDELITY_LABELS.items() if key in found]
    rest = [(key, _in_words(key, value)) for key, value in found.items() if key not in FIDELITY_LABELS]
    return main, rest


def _figure(key: str, value: Any) -> str:
    if key in SHARES and isinstance(value, int | float):
        return numbers.percent(value)
    if isinstance(value, float):
        return numbers.decimal(value, 4)
    return numbers.count(value) if isinstance(value, int) and not isinstance(value, bool) else _in_words(key, value)
