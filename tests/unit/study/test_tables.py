"""The study's summary says what the runs came to: every run in the table, means and differences seed by seed."""

import csv
import json
import subprocess
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from helpers.report_inputs import FIDELITY, sealed
from study import design
from study.tables import differences, spread

VARIANTS = {
    "verbatim": {"architecture": "qwen2_5_vl", "calibration": "none"},
    "lossless": {"architecture": "qwen3", "calibration": "none"},
}
ARMS = {
    "main": {"aligner": "fresh", "stage1_rate": "1e-3", "stage2_rate": "1e-3", "stage2_length": "1"},
    "slower": {"aligner": "fresh", "stage1_rate": "1e-3", "stage2_rate": "3e-4", "stage2_length": "1"},
}
PICTURES = {"verbatim": 0.5, "lossless": 0.6}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def score(pictures: float | None, words: float, perplexity: float) -> dict[str, Any]:
    seen = {} if pictures is None else {
        "pictures": {"overall": pictures, "trained": pictures + 0.1, "untrained": pictures - 0.1},
        "shuffled": {"overall": 0.08},
    }  # fmt: skip
    return {"num_parameters": 1234, "words": words, "perplexity": perplexity} | seen


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A configuration whose runs are all there, as the study's programs write them."""
    results, resources = tmp_path / "results", tmp_path / "resources"
    made = {
        "results": str(results), "resources": str(resources), "seeds": [0, 1], "variants": VARIANTS, "arms": ARMS,
        "training": {"per_device_train_batch_size": 32},
        "sizes": {"small": {"num_steps": {"stage1": 4, "stage2": 6}, "arms": ["main", "slower"]}},
    }  # fmt: skip
    for seed in made["seeds"]:
        quantiles = {"min": 0.3 + seed, "5%": 0.5, "median": 1.0, "95%": 2.0, "max": 3.0 + seed}
        write(resources / f"small-seed{seed}-llm/training.json", {"qk_gain_quantiles": quantiles})
    for run in design.runs(made):
        write(run.path(results, design.PAIR) / "donor.score.json", score(None, 1.0, 20.0))
        write(run.path(results, design.GRAFT) / "fidelity.json", sealed(FIDELITY | {"kl_mean_nats": 0.25}))
        write(run.path(results, design.GRAFT).with_suffix(".score.json"), score(0.1, 0.7, 25.0))
        for pattern, num_steps in ((design.STAGE1, 4), (design.STAGE2, 6)):
            stage_dir = run.path(results, pattern)
            losses = [{"step": step, "loss": 2.0 / step} for step in range(1, num_steps + 1)]
            metrics = {
                "num_steps": num_steps,
                "last_loss": 2.0 / num_steps,
                "losses": losses,
                "versions": {"torch": "2"},
            }
            write(stage_dir / "metrics.json", metrics)
            write(stage_dir / "score.json", score(PICTURES[run.variant] + 0.01 * run.seed, 0.9, 30.0))
    return made


def summarise(root: Path, config: dict[str, Any], output_dir: Path) -> None:
    output_dir.mkdir()
    command: list[str | Path] = [root / ".venv/bin/python", "-m", "study.summarise", "--config", json.dumps(config)]
    command += ["--results-dir", config["results"], "--csv", output_dir / "study.csv"]
    subprocess.run(
        [*command, "--tables", output_dir / "study.md", "--figure", output_dir / "study.svg"], check=True, cwd=root
    )


def test_the_table_has_a_row_for_each_run_and_model(root: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    summarise(root, config, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out/study.csv").open()))
    assert len(rows) == 2 * 2 * 2 * 4
    (row,) = (
        row
        for row in rows
        if (row["arm"], row["variant"], row["seed"], row["model"]) == ("slower", "lossless", "1", "stage2")
    )
    assert (row["pictures"], row["pictures_trained"], row["num_steps"]) == ("0.6100", "0.7100", "6")
    donors = [row for row in rows if row["model"] == "donor"]
    assert {(row["pictures"], row["words"], row["kl_from_donor_nats"]) for row in donors} == {("", "1.0000", "")}


def test_the_summary_compares_the_variants_of_each_seed(root: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    summarise(root, config, tmp_path / "out")
    text = (tmp_path / "out/study.md").read_text()
    assert "| main | verbatim | 0.505 (0.500 – 0.510) | 0.605 (0.600 – 0.610) |" in text
    assert "| slower | verbatim | -0.100 (-0.100, -0.100) |" in text
    assert "q/k gains of the donors 0.30 to 4.00, nine of ten between 0.50 and 2.00" in text
    assert "4 steps of stage1 and 6 steps of stage2" in text


def test_the_figure_shows_all_arms_and_the_same_outcomes_give_the_same_bytes(
    root: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    for name in ("first", "second"):
        summarise(root, config, tmp_path / name)
    first, second = ((tmp_path / name / "study.svg").read_bytes() for name in ("first", "second"))
    assert first == second
    assert xml.etree.ElementTree.fromstring(first).tag.endswith("svg")
    assert b"slower" in first and b"verbatim" in first


def test_a_spread_has_the_mean_the_least_and_the_greatest() -> None:
    assert spread([0.25, 0.5, 0.75], 2) == "0.50 (0.25 – 0.75)"


def test_differences_are_taken_between_values_of_the_same_seed() -> None:
    assert differences({1: 0.5, 0: 0.25}, {0: 0.5, 1: 0.5}, 2) == "-0.12 (-0.25, +0.00)"
