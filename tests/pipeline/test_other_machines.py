"""The demo on somebody else's machine, and environments as Snakemake plans and builds them."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.other_machines import by_nameless_user
from helpers.short_demo import SHORT_DEMO, sums_of
from helpers.workflow_run import WorkflowRun, planned_jobs
from scripts.common.files import sha256_of_file

DEMO = ("--configfile", "config/demo.yaml")

# What a module system, a proxy, a launcher, a job of Slurm and a bare container leave in the environment.
FOREIGN = {
    "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONWARNINGS": "error", "TZ": "Asia/Kathmandu",
    "RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1", "NPROC_PER_NODE": "8",
    "http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9",
    "SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "3", "CONDA_PREFIX": "/opt/conda",
}  # fmt: skip
MISSING = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")


def tools_without_git(directory: Path) -> str:
    """A PATH with all commands of this machine but git."""
    directory.mkdir()
    for folder in reversed(os.environ["PATH"].split(":")):
        for tool in Path(folder).glob("*"):
            if tool.name != "git":
                (directory / tool.name).unlink(missing_ok=True)
                (directory / tool.name).symlink_to(tool)
    return str(directory)


@pytest.mark.slow
@pytest.mark.full
def test_the_demo_has_the_same_results_by_a_nameless_user_among_foreign_settings(
    finished_short_demo: WorkflowRun, make_checkout: Callable[[str], WorkflowRun], tmp_path: Path
) -> None:
    there = make_checkout("there")
    shutil.copy2(finished_short_demo.directory / "short.yaml", there.directory)
    (tmp_path / "module").mkdir()
    (tmp_path / "module/transformers.py").write_text("raise SystemExit('of another Python')")
    kept = {name: value for name, value in os.environ.items() if name not in MISSING}
    foreign = {**kept, **FOREIGN, "PYTHONPATH": str(tmp_path / "module"), "PATH": tools_without_git(tmp_path / "bin")}
    finished = subprocess.run(
        [*by_nameless_user(), "sh", "-c", 'umask 077; exec "$@"', "sh", *there.command(*SHORT_DEMO)],
        cwd=there.directory, env=foreign, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout[-6000:]
    assert sums_of(there.results) == sums_of(finished_short_demo.results) != {}
    assert "unknown" in (there.results / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def checkout(root: Path, make_checkout: Callable[[str], WorkflowRun]) -> Iterator[WorkflowRun]:
    """A checkout with `.venvs` of its own, in which the environment `serve` is to be one small package."""
    made = make_checkout("environments")
    link = made.directory / ".venvs"
    shared_dir = link.resolve()
    link.unlink()
    link.mkdir()
    for path in shared_dir.iterdir():
        if path.name in ("train", "evaluate"):
            (link / path.name).symlink_to(path.resolve(), target_is_directory=True)
        elif path.name in ("train.ok", "evaluate.ok"):
            shutil.copyfile(path, link / path.name)
    entry = re.search(r"^iniconfig==.*?(?=^\S)", (root / "envs/workflow.lock").read_text(), re.MULTILINE | re.DOTALL)
    assert entry is not None
    (made.directory / "envs/serve.lock").write_text(entry.group())
    yield made


def change(lock_path: Path) -> None:
    """Another content, and a date long before the environment's."""
    lock_path.write_text(f"{lock_path.read_text()}# changed\n")
    os.utime(lock_path, (0, 0))


@pytest.mark.full
def test_only_another_content_of_a_lock_reruns_what_was_made_with_the_environment(checkout: WorkflowRun) -> None:
    targets = (*DEMO, "--", "resources/data/digits/test.tsv")
    lock_path = checkout.directory / "envs/train.lock"
    checkout.run(*targets)
    lock_path.touch()
    assert planned_jobs(checkout.run("-n", *targets)) == set()
    shutil.rmtree(checkout.directory / ".snakemake/metadata")  # a fresh clone has none
    lock_path.touch()
    assert planned_jobs(checkout.run("-n", *targets)) == set()
    change(lock_path)
    assert planned_jobs(checkout.run("-n", *targets)) == {"environment role=train", "digits"}


@pytest.mark.full
@pytest.mark.needs_network
def test_snakemake_builds_beside_and_a_build_that_fails_needs_no_tidying(checkout: WorkflowRun) -> None:
    target = (*DEMO, "--", ".venvs/serve.ok")
    lock_path = checkout.directory / "envs/serve.lock"
    link, marker_path = checkout.directory / ".venvs/serve", checkout.directory / ".venvs/serve.ok"
    checkout.run(*target)
    first_dir, first_marker, lock = link.resolve(), marker_path.read_text(), lock_path.read_text()

    lock_path.write_text(re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", lock))
    assert re.search(r"environment failed:\n  error: envs/serve.lock: `.*pip sync", checkout.run(*target, status=1))
    assert (link.resolve(), marker_path.read_text()) == (first_dir, first_marker)

    lock_path.write_text(lock)
    assert "Nothing to be done" in checkout.run(*target)
    change(lock_path)
    checkout.run(*target)
    assert first_dir.exists() and link.resolve() != first_dir
    assert sha256_of_file(lock_path) in marker_path.read_text()
    assert "Nothing to be done" in checkout.run("-n", *target)
