"""What several tests need: where things are, and small donors in the hub's format."""

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from helpers import workflow_run
from helpers.evalscope_forks import EvalScopeForks
from helpers.kept_results import keep, key_of_tree
from helpers.workflow_run import WorkflowRun

# Ignored where the tests were started in the background (`nohup`, `&` in a script), and then by all that they start, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests that import torch themselves, so that a Python of another environment cannot even read them.
TRAIN_ENVIRONMENT_DIRS = ("model", "serving")
# A test that uses the fixture needs the environment.
MARKERS = {
    "train_python": "needs_train",
    "evaluate_python": "needs_evaluate",
    "serve_cpu_python": "needs_serve_cpu",
    "app_python": "needs_app",
}


class UnreadModule(pytest.Module):
    """A file of tests that is skipped unread."""

    def collect(self) -> NoReturn:
        pytest.skip("torch is not importable here; see `make test-model` and `make test-serving`")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if module_path.parent.name in TRAIN_ENVIRONMENT_DIRS and importlib.util.find_spec("torch") is None:
        return UnreadModule.from_parent(parent, path=module_path)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in MARKERS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKERS[fixture])


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root, where every program is started."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def train_python(root: Path) -> Path:
    return environment_python(root, "train")


@pytest.fixture(scope="session")
def evaluate_python(root: Path) -> Path:
    return environment_python(root, "evaluate")


@pytest.fixture(scope="session")
def evalscope_forks(evaluate_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvalScopeForks]:
    """For an EvaluationRun: EvalScope, imported once for all of them."""
    forks = EvalScopeForks(evaluate_python, tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def serve_cpu_python(root: Path) -> Path:
    """vLLM's; up to 3 min of downloads."""
    return built_python(root, "serve_cpu")


@pytest.fixture(scope="session")
def app_python(root: Path) -> Path:
    """gradio's; some seconds of downloads."""
    return built_python(root, "app")


def built_python(root: Path, role: str) -> Path:
    """Builds an environment by the workflow's own rule: up to date, nothing is done."""
    command = ["snakemake", "--cores", "all", "--configfile", "config/demo.yaml", "--", f".venvs/{role}.ok"]
    environment = {**os.environ, "PATH": f"{root / '.venv/bin'}:{os.environ['PATH']}"}
    # Two groups of tests that run side by side may both need one, and Snakemake refuses a second one in a directory.
    with open(root / ".venvs/tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    log_path = root / f"logs/environments/{role}.log"
    log = log_path.read_text() if log_path.exists() else ""
    assert process.returncode == 0, f"the environment {role} cannot be built: {process.stderr}\n{log_path}: {log}"
    return root / f".venvs/{role}/bin/python"


def environment_python(root: Path, role: str) -> Path:
    python_path = root / ".venvs" / role / "bin" / "python"
    assert python_path.exists(), f"{python_path} not found: run `make environments` first"
    return python_path


@pytest.fixture(scope="session")
def tiny_donors_dir(root: Path, train_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random donors of a few thousand parameters, saved as the demo's donors are; nothing was trained.

    Each session has a copy of its own of those that are kept.
    """
    program = "tests/helpers/make_tiny_donors.py"
    kept_dir = root / ".cache/tests" / f"tiny-donors-{key_of_tree(root, program)}"
    directory = tmp_path_factory.mktemp("donors")
    if kept_dir.exists():
        return Path(shutil.copytree(kept_dir, directory, dirs_exist_ok=True))
    subprocess.run([str(train_python), program, "--output-dir", str(directory)], cwd=root, check=True)
    keep(directory, [path.name for path in directory.iterdir()], kept_dir)
    return directory


@pytest.fixture(scope="session")
def tiny_vl_dir(tiny_donors_dir: Path) -> Path:
    return tiny_donors_dir / "vl"


@pytest.fixture(scope="session")
def tiny_llm_dir(tiny_donors_dir: Path) -> Path:
    return tiny_donors_dir / "llm"


@pytest.fixture(scope="session")
def make_checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], WorkflowRun]:
    """Makes checkouts of the working tree, by their names."""

    def copy(checkout: str) -> WorkflowRun:
        return workflow_run.make_checkout(root, tmp_path_factory.mktemp(checkout) / "vlgraft")

    return copy


@pytest.fixture(scope="session")
def demo_checkout(make_checkout: Callable[[str], WorkflowRun]) -> WorkflowRun:
    """Where the demo is run, so that its donors are made once."""
    return make_checkout("demo")
