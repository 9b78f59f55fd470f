"""The demo, run once for every test that looks at it, and kept for the second tier."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helpers.kept_results import keep, key_of_tree
from helpers.short_demo import SHORT_DEMO, short_demo
from helpers.workflow_run import WorkflowRun

# What other tests need of a demo that is done.
KEPT = ("results/demo", "resources")


@pytest.fixture(scope="session")
def kept_demo_dir(root: Path) -> Path:
    """Where the demo of these very files is kept."""
    return root / ".cache/tests" / f"demo-{key_of_tree(root)}"


@pytest.fixture(scope="session")
def finished_demo(demo_checkout: WorkflowRun, kept_demo_dir: Path) -> WorkflowRun:
    """The whole demo, run once from nothing and never disturbed."""
    demo_checkout.run("--configfile", "config/demo.yaml")
    keep(demo_checkout.directory, KEPT, kept_demo_dir)
    return demo_checkout


@pytest.fixture(scope="session")
def kept_demo(request: pytest.FixtureRequest, kept_demo_dir: Path) -> WorkflowRun:
    """What the demo made, of an earlier session if that had the same files: to be looked at, not to be run."""
    if not kept_demo_dir.exists():
        request.getfixturevalue("finished_demo")
    return WorkflowRun(kept_demo_dir)


@pytest.fixture(scope="session")
def finished_short_demo(make_checkout: Callable[[str], WorkflowRun]) -> WorkflowRun:
    """A demo of few steps and questions, never disturbed: what others have to come to, and the donors for those beside it."""
    checkout = make_checkout("short")
    overlay = short_demo(num_steps=60, models=["stage2"])
    (checkout.directory / "short.yaml").write_text(yaml.safe_dump(overlay))
    checkout.run(*SHORT_DEMO)
    return checkout
