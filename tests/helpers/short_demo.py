"""The demo in a minute, for tests that do not ask what was learned, and what is compared of two runs of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.common.files import sha256_of_file

# With the overlay in a file of this name.
SHORT_DEMO = ("--configfile", "config/demo.yaml", "short.yaml")
# Every file of weights, the tables and the ledger.
RESULTS = ("**/*.safetensors", "eval/*.csv", "**/ledger.tsv")


def short_demo(num_steps: int, models: Sequence[str]) -> dict[str, Any]:
    """An overlay for config/demo.yaml."""
    stage = {"flags": {"max_steps": num_steps, "save_steps": 10, "per_device_train_batch_size": 16}}
    return {
        "demo": {
            "digits": {"num_test": 40},
            "vision_donor": {"num_steps": 10, "min_dev_accuracy": 0.0},
            "language_donor": {"num_steps": 20, "num_curriculum_steps": 5, "min_text_accuracy": 0.0},
        },
        "stage1": stage,
        "stage2": stage,
        "evaluate": {"models": list(models)},
    }


def sums_of(results_dir: Path, patterns: Sequence[str] = RESULTS) -> dict[str, str]:
    """{path in the results: sha256}."""
    paths = {path for pattern in patterns for path in results_dir.glob(pattern)}
    return {str(path.relative_to(results_dir)): sha256_of_file(path) for path in sorted(paths)}
