"""The demo, run once for every test that looks at it."""

import pytest

from helpers.workflow_run import WorkflowRun


@pytest.fixture(scope="session")
def finished_demo(demo_checkout: WorkflowRun) -> WorkflowRun:
    """The whole demo, run once from nothing and never disturbed."""
    demo_checkout.run("--configfile", "config/demo.yaml")
    return demo_checkout
