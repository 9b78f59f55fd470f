"""A checkout of its own for tests that run the workflow, with the environments of the repository."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from workflow_run import WorkflowRun


@pytest.fixture(scope="session")
def make_checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], WorkflowRun]:
    """Copies the working tree (what git tracks or would track) and links the environments, which take minutes to build."""

    def copy(name: str) -> WorkflowRun:
        directory = tmp_path_factory.mktemp(name) / "vlgraft"
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=root, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for relative in filter(None, listed.split("\0")):
            source, target = root / relative, directory / relative
            if source.exists():  # a tracked file that was deleted stays listed until it is committed
                target.parent.mkdir(parents=True, exist_ok=True)
                # With its time: a lock that looks newer than its environment would rebuild it.
                shutil.copy2(source, target)
        for environments in (".venv", ".venvs"):
            (directory / environments).symlink_to(root / environments, target_is_directory=True)
        return WorkflowRun(directory)

    return copy


@pytest.fixture(scope="session")
def finished_demo(make_checkout: Callable[[str], WorkflowRun]) -> WorkflowRun:
    """The whole demo, run once from nothing and never disturbed."""
    demo = make_checkout("demo")
    demo.run("--configfile", "config/demo.yaml")
    return demo
