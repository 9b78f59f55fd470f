"""The demo, run once for every test that looks at it, and kept for the second tier."""

import shutil
from pathlib import Path

import pytest

from helpers.kept_results import keep, key_of_tree
from helpers.workflow_run import WorkflowRun

# What other tests need of a demo that is done.
KEPT = ("results/demo", "resources/data/digits/test.tsv")


@pytest.fixture(scope="session")
def kept_demo_dir(root: Path) -> Path:
    """Where the demo of these very files is kept."""
    return root / ".cache/tests" / f"demo-{key_of_tree(root)}"


@pytest.fixture(scope="session")
def finished_demo(demo_checkout: WorkflowRun, kept_demo_dir: Path) -> WorkflowRun:
    """The whole demo, run once from nothing and never disturbed."""
    demo_checkout.run("--configfile", "config/demo.yaml")
    for other_dir in kept_demo_dir.parent.glob("demo-*"):
        shutil.rmtree(other_dir)
    keep(demo_checkout.directory, KEPT, kept_demo_dir)
    return demo_checkout


@pytest.fixture(scope="session")
def kept_demo(request: pytest.FixtureRequest, kept_demo_dir: Path) -> WorkflowRun:
    """What the demo made, of an earlier session if that had the same files: to be looked at, not to be run."""
    if not kept_demo_dir.exists():
        request.getfixturevalue("finished_demo")
    return WorkflowRun(kept_demo_dir)
