"""The lines of docs/by-hand.md, exactly as they stand there, come from two donors to the table."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from helpers.shell_lines import lines_of
from helpers.workflow_run import WorkflowRun
from scripts.evaluate.model_names import pipeline_order
from scripts.evaluate.scores import read_scores

pytestmark = [pytest.mark.slow, pytest.mark.full]

# The demo's configuration, so much shorter that nothing is learned: the lines are tested, not the recipe.
SHORTER: dict[str, Any] = {
    "demo": {
        "vision_donor": {"num_steps": 2, "min_dev_accuracy": 0},
        "language_donor": {"num_steps": 2, "min_text_accuracy": 0},
        "digits": {"num_dev": 20, "num_test": 12, "num_copies": 1},
    },
    "fidelity": {"max_tokens": 64},
    "stage1": {"flags": {"max_steps": 2, "save_steps": 2, "per_device_train_batch_size": 4}},
    "stage2": {"flags": {"max_steps": 2, "save_steps": 2, "per_device_train_batch_size": 4}},
}


def merged(value: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`value` with other values at the keys of `changes`, section by section."""
    inner = {key: merged(value[key], change) for key, change in changes.items() if isinstance(change, dict)}
    return value | changes | inner


def test_the_lines_of_the_page_come_from_two_donors_to_the_table(make_checkout: Callable[[str], WorkflowRun]) -> None:
    checkout = make_checkout("by-hand").directory
    config_path = checkout / "config/demo.yaml"
    config_path.write_text(yaml.safe_dump(merged(yaml.safe_load(config_path.read_text()), SHORTER)))
    finished = subprocess.run(
        ["bash", "-e", "-c", lines_of(checkout / "docs/by-hand.md")], cwd=checkout, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    models = yaml.safe_load(config_path.read_text())["evaluate"]["models"]
    overall = [score for score in read_scores(checkout / "results/demo/eval/digits.csv") if score.group == "overall"]
    assert [score.model for score in overall] == sorted(models, key=pipeline_order)
    assert all(f"{score.model}" in finished.stdout for score in overall)
