"""With accounting (slurmdbd), where sacct tells how jobs ended, and an account is needed; donors are the user's directories."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.cluster_run import ClusterRun, wait_for_end
from helpers.shared_run import SharedRun
from helpers.slurm_cluster import ACCOUNT, install_packages, slurm_cluster

pytestmark = [pytest.mark.slow, pytest.mark.full]


@pytest.fixture(scope="module")
def accounted_run(
    prefetched: SharedRun[ClusterRun],
    undisturbed_stage1_run: SharedRun[dict[str, str]],
    hub_dirs: SharedRun[dict[str, Path]],
    site_variables: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SharedRun[ClusterRun]]:
    """The prefetched checkout on a cluster of its own, with donors of the user's."""
    with ExitStack() as stack:

        def start() -> ClusterRun:
            undisturbed_stage1_run()
            site = prefetched()
            root = tmp_path_factory.mktemp("accounting")
            install_packages()
            running = stack.enter_context(slurm_cluster(root / "cluster", has_accounting=True))
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            # Set over what the other cluster's tests have set, and taken back before they go on.
            for name, value in (site_variables | running.environment | {"SLURM_ACCOUNT": ACCOUNT}).items():
                patch.setenv(name, value)
            run = site.copy(root / "vlgraft", running)
            run.forget("stage1")
            donors = {"vl": "vision", "llm": "language"}
            run.write_overlay(
                donors={role: {"kind": "local", "path": str(hub_dirs()[name])} for role, name in donors.items()}
            )
            return run

        yield SharedRun("the start of the cluster with accounting", start)


@pytest.fixture
def accounted(accounted_run: SharedRun[ClusterRun]) -> ClusterRun:
    return accounted_run()


def test_a_cancelled_job_is_submitted_again_and_ends_with_the_same_weights(
    accounted: ClusterRun, undisturbed_stage1: dict[str, str]
) -> None:
    with accounted.started(accounted.target("stage1")) as process:
        with accounted.held("stage1", 25, process) as reached:
            accounted.cluster.run("scancel", accounted.starts("stage1")[0]["slurm_job_id"])
            accounted.wait_for_stop("stage1", num_failures=0)
        wait_for_end(accounted, process)
    assert accounted.weights_sha256("stage1") == undisturbed_stage1
    states = accounted.cluster.run("sacct", "-n", "-P", "-X", "--format=JobID,State,Account").split("\n")
    jobs = {line.split("|")[0]: line.split("|")[1:] for line in states if line}
    first, second = accounted.starts("stage1")
    accounted.assert_saved_when_told_to_stop("stage1", 0, reached)
    assert jobs[first["slurm_job_id"]] == ["CANCELLED by 0", ACCOUNT]
    assert jobs[second["slurm_job_id"]] == ["COMPLETED", ACCOUNT]


def test_a_wrong_account_ends_with_slurms_reason(accounted: ClusterRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ACCOUNT", "nobody")
    output = accounted.run("--force", accounted.target("stage1"), status=1)
    assert re.search(r"Invalid account|account nobody", output), output[-4000:]
