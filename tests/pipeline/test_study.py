"""The study runs from nothing to its figure by one target, and again only where something changed."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.workflow_run import WorkflowRun, planned_rules

pytestmark = [pytest.mark.slow, pytest.mark.full]

TARGETS = ("study.csv", "study.md", "study.svg")


@pytest.fixture(scope="module")
def config(root: Path) -> dict[str, Any]:
    """The shipped study with one small size, one seed, and trainings of three steps, which learn nothing."""
    loaded: dict[str, Any] = yaml.safe_load((root / "study/config.yaml").read_text())
    loaded |= {"results": "results/tiny_study", "resources": "resources/tiny_study", "seeds": [0]}
    small = loaded["sizes"]["small"]
    small["num_steps"] = {"stage1": 3, "stage2": 3}
    small["arms"] = ["main"]
    small["vision_donor"] |= {"num_steps": 3, "min_dev_accuracy": 0.0}
    small["language_donor"] |= {"num_steps": 3, "min_text_accuracy": 0.0}
    loaded["sizes"] = {"small": small}
    loaded["sums"] |= {"num_train": 96, "num_test": 20}
    loaded["calibration"] |= {"max_tokens": 2048}
    loaded["fidelity"] |= {"max_tokens": 256}
    return loaded


def with_config(checkout: WorkflowRun, config: dict[str, Any], *arguments: str) -> str:
    (checkout.directory / "tiny_study.yaml").write_text(yaml.safe_dump(config))
    return checkout.run("--snakefile", "study/Snakefile", "--configfile", "tiny_study.yaml", *arguments)


def test_one_target_makes_the_whole_study_and_then_has_nothing_to_do(
    demo_checkout: WorkflowRun, config: dict[str, Any]
) -> None:
    with_config(demo_checkout, config)
    results_dir = demo_checkout.directory / config["results"]
    assert all((results_dir / name).stat().st_size for name in TARGETS)

    rows = list(csv.DictReader((results_dir / "study.csv").open()))
    models = {(row["variant"], row["model"]): row for row in rows}
    assert len(models) == len(rows) == 3 * 4
    kls = {variant: float(models[variant, "graft"]["kl_from_donor_nats"]) for variant in config["variants"]}
    assert kls["lossless"] == 0 < kls["affine"] and kls["verbatim"] > 0
    for variant in config["variants"]:
        assert models[variant, "stage1"]["num_steps"] == models[variant, "stage2"]["num_steps"] == "3"
        metrics = [
            json.loads((results_dir / f"small/seed0/{variant}/fresh/{stage}/metrics.json").read_text())
            for stage in ("stage1_1e-3", "stage1_1e-3/stage2_1e-3_x1")
        ]
        trained = [{name for name, num in of_stage["tensors_changed"].items() if num} for of_stage in metrics]
        assert trained == [{"aligner"}, {"aligner", "language_model", "vision_tower"}]
    # Nothing but the aligner has been trained: the language model is the graft's.
    for row in ("words", "perplexity"):
        assert models["lossless", "stage1"][row] == models["lossless", "graft"][row] == models["lossless", "donor"][row]

    assert "Nothing to be done" in with_config(demo_checkout, config)


def test_another_rate_of_stage_2_trains_no_stage_1(demo_checkout: WorkflowRun, config: dict[str, Any]) -> None:
    with_config(demo_checkout, config)
    arms = config["arms"] | {"main": config["arms"]["main"] | {"stage2_rate": "2e-4"}}
    assert planned_rules(with_config(demo_checkout, config | {"arms": arms}, "-n")) == {
        "stage2", "score_stage", "summary", "all",
    }  # fmt: skip


def test_a_donor_that_learned_too_little_stops_the_study_with_what_to_do(
    demo_checkout: WorkflowRun, config: dict[str, Any]
) -> None:
    language_donor = config["sizes"]["small"]["language_donor"] | {"min_text_accuracy": 0.99}
    small = config["sizes"]["small"] | {"language_donor": language_donor}
    strict = config | {"sizes": {"small": small}, "resources": "resources/strict_study"}
    (demo_checkout.directory / "tiny_study.yaml").write_text(yaml.safe_dump(strict))
    target = "resources/strict_study/small-seed0-llm/config.json"
    arguments = ["--snakefile", "study/Snakefile", "--configfile", "tiny_study.yaml", "--", target]
    said = demo_checkout.run(*arguments, status=1)
    assert "expected at least 0.99 (min_text_accuracy); raise num_steps" in said
    assert not (demo_checkout.directory / target).exists()
