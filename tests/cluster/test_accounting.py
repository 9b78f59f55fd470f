"""With accounting (slurmdbd), where sacct is asked how jobs ended, and an account is needed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.cluster_run import ClusterRun, wait_for_end, wait_for_step
from helpers.slurm_cluster import ACCOUNT, SlurmCluster, install_packages, missing_conditions, slurm_cluster
from helpers.workflow_run import WorkflowRun

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def accounting_cluster(
    tmp_path_factory: pytest.TempPathFactory, site_variables: dict[str, str]
) -> Iterator[SlurmCluster]:
    if reason := missing_conditions():
        pytest.skip(reason)
    install_packages()
    root = tmp_path_factory.mktemp("accounting") / "cluster"
    with slurm_cluster(root, has_accounting=True) as running, pytest.MonkeyPatch.context() as patch:
        # Set over what the other cluster's tests have set, and taken back before they go on.
        for name, value in (site_variables | running.environment | {"SLURM_ACCOUNT": ACCOUNT}).items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def accounted(
    accounting_cluster: SlurmCluster, make_checkout: Callable[[str], WorkflowRun], hub_dir: Path
) -> ClusterRun:
    """A checkout whose donors are directories of the user's."""
    run = ClusterRun(make_checkout("accounted").directory, accounting_cluster)
    donors = {"vl": "vision", "llm": "language"}
    run.write_overlay(donors={role: {"kind": "local", "path": str(hub_dir / name)} for role, name in donors.items()})
    return run


def test_a_cancelled_job_is_submitted_again_and_ends_with_the_same_weights(
    accounted: ClusterRun, undisturbed: dict[str, dict[str, str]]
) -> None:
    with accounted.started(accounted.target("stage1")) as process:
        wait_for_step(accounted, "stage1", 25, process)
        accounted.cluster.run("scancel", accounted.starts("stage1")[0]["slurm_job_id"])
        wait_for_end(accounted, process)
    assert accounted.weights_sha256("stage1") == undisturbed["stage1"]
    states = accounted.cluster.run("sacct", "-n", "-P", "-X", "--format=JobID,State,Account").split("\n")
    jobs = {line.split("|")[0]: line.split("|")[1:] for line in states if line}
    first, second = accounted.starts("stage1")
    assert second["resume_step"] >= 20
    assert jobs[first["slurm_job_id"]] == ["CANCELLED by 0", ACCOUNT]
    assert jobs[second["slurm_job_id"]] == ["COMPLETED", ACCOUNT]


def test_a_wrong_account_ends_with_slurms_reason(accounted: ClusterRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ACCOUNT", "nobody")
    output = accounted.run("--force", accounted.target("stage1"), status=1)
    assert re.search(r"Invalid account|account nobody", output), output[-4000:]
