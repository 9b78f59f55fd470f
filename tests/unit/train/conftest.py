"""A training in a temporary directory, without a model."""

from pathlib import Path

import pytest

from helpers.stage import make_run
from scripts.train.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = make_run(tmp_path)
    run.watch.path.mkdir()
    return run
