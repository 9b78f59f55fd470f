"""A real Slurm, and a checkout in which the demo's recipe runs on it."""

from collections.abc import Callable, Iterator

import pytest
from cluster_run import ClusterRun
from slurm_cluster import SlurmCluster, install_packages, missing_conditions, slurm_cluster
from workflow_run import WorkflowRun

# What a user of a real cluster would set for theirs; here for two nodes that share two cores.
SITE = {
    "SLURM_POLL_S": "2", "SLURM_STATUS_COMMAND": "squeue", "SLURM_RETRIES": "6", "SLURM_SIGNAL_S": "1",
    "SLURM_MEM_MB_TRAIN": "3000", "SLURM_CPUS_TRAIN": "2", "SLURM_RUNTIME_TRAIN": "30",
    "SLURM_MEM_MB_EVALUATE": "3000", "SLURM_CPUS_EVALUATE": "2", "SLURM_RUNTIME_EVALUATE": "30",
    "SLURM_MEM_MB_FIDELITY": "3000",
}  # fmt: skip


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    if reason := missing_conditions():
        pytest.skip(reason)
    install_packages()
    with slurm_cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running, pytest.MonkeyPatch.context() as patch:
        for name, value in (SITE | running.environment).items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="session")
def site(cluster: SlurmCluster, make_checkout: Callable[[str], WorkflowRun]) -> ClusterRun:
    """A checkout on the cluster's login node."""
    run = ClusterRun(make_checkout("site").directory)
    run.write_overlay()
    return run
