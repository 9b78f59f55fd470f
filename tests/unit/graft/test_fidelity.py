"""fidelity.json is read as it was written, gates a refitted graft, and is described in words; all of it without torch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.calibration_report import REPORT
from helpers.report_inputs import FIDELITY
from scripts.common.errors import UserError
from scripts.common.settings import settings_from
from scripts.graft.fidelity import (
    Fidelity,
    Gate,
    NoRefit,
    check_gate,
    describe,
    read_fidelity,
    refit_figures,
    write_fidelity,
)

LOSSLESS = settings_from(Fidelity, FIDELITY)
REFITTED = replace(
    LOSSLESS,
    architecture="qwen2_5_vl",
    calibration=refit_figures(Gate(REPORT, max_kl_nats=0.05)),
    bit_equal=False,
    kl_mean_nats=0.04,
)


@pytest.mark.parametrize("fidelity", [LOSSLESS, REFITTED], ids=["lossless", "refitted"])
def test_fidelity_is_read_as_it_was_written(tmp_path: Path, fidelity: Fidelity) -> None:
    path = tmp_path / "fidelity.json"
    write_fidelity(path, fidelity)
    assert read_fidelity(path) == fidelity


def test_figures_that_were_edited_by_hand_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fidelity.json"
    write_fidelity(path, REFITTED)
    path.write_text(path.read_text().replace('"kl_mean_nats": 0.04', '"kl_mean_nats": 0.03'))
    with pytest.raises(
        UserError, match=rf"^{path}: edited by hand, or of another version: its content has sha256 \w{{64}}, "
    ):
        read_fidelity(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl_mean_nats": "0.1"}, 'kl_mean_nats: "0.1" found; expected float; make this file again'),
        ({"dropped": {"num_tensors": 72}}, "dropped.num_parameters: missing; expected int"),
        ({"calibration": {"kind": "gains"}}, 'calibration.kind: "gains" found; expected none'),
    ],
)
def test_another_shape_is_refused_with_the_key(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "fidelity.json"
    path.write_text(json.dumps(FIDELITY | changes))
    with pytest.raises(UserError, match=f"{path}: {message}"):
        read_fidelity(path)


def test_the_residuals_of_a_refit_are_summed_over_its_layers() -> None:
    residuals = refit_figures(Gate(REPORT, 0.05)).relative_residual_held_out
    assert (residuals.q.mean, residuals.q.max, residuals.q.layer_of_max) == (pytest.approx(0.15), 0.2, 1)
    assert (residuals.k.max, residuals.k.layer_of_max, residuals.k.by_layer) == (0.3, 0, [0.3, 0.1])


def test_the_gate_lets_through_what_is_near_enough_and_grafts_without_a_refit(tmp_path: Path) -> None:
    check_gate(REFITTED, tmp_path)
    check_gate(replace(REFITTED, kl_mean_nats=0.05), tmp_path)
    check_gate(replace(LOSSLESS, bit_equal=False, kl_mean_nats=9.0), tmp_path)


def test_a_refit_above_the_threshold_is_refused_with_its_figures(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        check_gate(replace(REFITTED, kl_mean_nats=0.051), tmp_path)
    for part in ("0.051 nats a token", "of q 0.200, of k 0.300", "expected at most 0.05 (calibration.max_kl_nats)"):
        assert part in str(refusal.value)


def test_the_words_say_what_was_lost_and_what_was_refitted() -> None:
    assert describe(LOSSLESS).startswith("nothing was lost: 512 tokens of 9 texts")
    assert "q and k were refitted on texts/calibration.txt" in describe(REFITTED)
    assert "refitted" not in describe(replace(REFITTED, calibration=NoRefit()))
