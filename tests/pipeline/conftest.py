"""The demo, run once for every test that looks at it."""

from collections.abc import Callable

import pytest
from workflow_run import WorkflowRun


@pytest.fixture(scope="session")
def finished_demo(make_checkout: Callable[[str], WorkflowRun]) -> WorkflowRun:
    """The whole demo, run once from nothing and never disturbed."""
    demo = make_checkout("demo")
    demo.run("--configfile", "config/demo.yaml")
    return demo
