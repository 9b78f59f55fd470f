"""A real Slurm, and a checkout in which the recipe runs on it, with tiny donors: no test here asks what a model has learned."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.cluster_run import TABLE, ClusterRun, WholeRun, wait_for_end
from helpers.hub_stand_in import hub_stand_in
from helpers.kept_results import keep, key_of_tree
from helpers.shared_run import SharedRun
from helpers.slurm_cluster import (
    ACCOUNT,
    GPU_TYPE,
    QOS,
    SlurmCluster,
    install_packages,
    missing_conditions,
    slurm_cluster,
)
from helpers.workflow_run import RUN_LIMIT_S, make_checkout

# What decides, beside the programs, what the finished checkout is.
MAKERS = ("tests/cluster/conftest.py", "tests/helpers/cluster_run.py", "tests/helpers/make_tiny_donors.py")
# As a hub has them: the models of the account `lab`, and where tests/helpers/make_tiny_donors.py puts them.
HUB_MODELS = {"vision": "vl", "language": "llm"}


@pytest.fixture(scope="session")
def site_variables() -> dict[str, str]:
    """What a user of a real cluster would set for theirs; here for two nodes that share two cores."""
    return {
        "SLURM_ACCOUNT": ACCOUNT, "SLURM_QOS": QOS, "SLURM_PARTITION_GPU": "short,gpu", "SLURM_GPU_TYPE": GPU_TYPE,
        "SLURM_POLL_S": "1", "SLURM_RETRIES": "6", "SLURM_SIGNAL_S": "1",
        "SLURM_MEM_MB_TRAIN": "3000", "SLURM_CPUS_TRAIN": "2", "SLURM_RUNTIME_TRAIN": "30",
        "SLURM_MEM_MB_EVALUATE": "3000", "SLURM_CPUS_EVALUATE": "2", "SLURM_RUNTIME_EVALUATE": "30",
        "SLURM_CPUS_FIDELITY": "2", "SLURM_MEM_MB_FIDELITY": "3000", "SLURM_MEM_MB_CHECK_CHECKPOINT": "3000",
    }  # fmt: skip


@pytest.fixture(scope="session")
def started_cluster(
    tmp_path_factory: pytest.TempPathFactory, site_variables: dict[str, str]
) -> Iterator[SharedRun[SlurmCluster]]:
    with ExitStack() as stack:

        def start() -> SlurmCluster:
            install_packages()
            running = stack.enter_context(slurm_cluster(tmp_path_factory.mktemp("slurm") / "cluster"))
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in (site_variables | running.environment).items():
                patch.setenv(name, value)
            return running

        yield SharedRun("the start of the cluster", start)


@pytest.fixture(autouse=True)
def conditions_of_a_cluster() -> None:
    if reason := missing_conditions():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def hub_dirs(request: pytest.FixtureRequest) -> SharedRun[dict[str, Path]]:
    """The donors, as a hub has them."""

    def make() -> dict[str, Path]:
        donors_dir: Path = request.getfixturevalue("tiny_donors_dir")
        return {model: donors_dir / name for model, name in HUB_MODELS.items()}

    return SharedRun("the making of the donors", make)


@pytest.fixture(scope="session")
def kept_dir(root: Path) -> Path:
    """Where the checkout is kept in which these very files have come to the table."""
    return root / ".cache/tests" / f"cluster-{key_of_tree(root, *MAKERS)}"


@pytest.fixture(scope="session")
def site_dir(root: Path) -> Path:
    """Where the checkout is made, which the kept one needs: its rows name their pictures there, by absolute paths."""
    return root / ".cache/tests/site/vlgraft"


@pytest.fixture(scope="session")
def prefetched(
    root: Path,
    site_dir: Path,
    kept_dir: Path,
    started_cluster: SharedRun[SlurmCluster],
    hub_dirs: SharedRun[dict[str, Path]],
) -> SharedRun[ClusterRun]:
    """A fresh checkout after `prefetch` on a login node; whatever runs in it from then on has no network."""

    def make() -> ClusterRun:
        cluster = started_cluster()
        for directory in (kept_dir, site_dir):
            shutil.rmtree(directory, ignore_errors=True)
        run = ClusterRun(make_checkout(root, site_dir).directory, cluster)
        run.write_overlay()
        with hub_stand_in({f"lab/{model}": directory for model, directory in hub_dirs().items()}) as hub:
            finished = subprocess.run(
                run.command_with_network("prefetch"), cwd=run.directory, env=os.environ | hub.environment(), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=RUN_LIMIT_S,
            )  # fmt: skip
            assert finished.returncode == 0, finished.stdout[-6000:]
            for model in HUB_MODELS:
                assert any(f"lab/{model}/" in path and path.endswith(".safetensors") for path in hub.paths), hub.paths
        return run

    return SharedRun("prefetch", make)


@pytest.fixture(scope="session")
def undisturbed_stage1_run(prefetched: SharedRun[ClusterRun]) -> SharedRun[dict[str, str]]:
    """The weights that every disturbed training of stage 1 must come to as well."""

    def make() -> dict[str, str]:
        run = prefetched()
        run.run(run.target("stage1"))
        assert len(run.starts("stage1")) == 1
        weights = run.weights_sha256("stage1")
        run.forget("stage1")
        return weights

    return SharedRun("the undisturbed training of stage 1", make)


@pytest.fixture(scope="session")
def whole_run(
    prefetched: SharedRun[ClusterRun], undisturbed_stage1_run: SharedRun[dict[str, str]], kept_dir: Path
) -> SharedRun[WholeRun]:
    """To the table by one command: stage 1 in one process, whose job is cancelled once, stage 2 on two nodes.

    Kept if stage 1 came to the undisturbed weights; nothing disturbed stage 2.
    """

    def make() -> WholeRun:
        undisturbed_weights = undisturbed_stage1_run()
        run = prefetched()
        with run.started(TABLE) as process:
            with run.held("stage1", 25, process) as reached:
                run.cluster.run("scancel", run.starts("stage1")[0]["slurm_job_id"])
                run.wait_for_stop("stage1", num_failures=0)
            wait_for_end(run, process)
        if run.weights_sha256("stage1") == undisturbed_weights:
            keep(run.directory, [path.name for path in run.directory.iterdir()], kept_dir)
        return WholeRun(run, reached)

    return SharedRun("the run to the table", make)


@pytest.fixture(scope="session")
def kept_run(
    started_cluster: SharedRun[SlurmCluster], whole_run: SharedRun[WholeRun], kept_dir: Path, site_dir: Path
) -> SharedRun[ClusterRun]:
    """The finished checkout, of an earlier session if that had the same files: to be copied and looked at, not to be run."""

    def make() -> ClusterRun:
        if not (kept_dir.exists() and site_dir.exists()):
            whole_run()
            assert kept_dir.exists(), "stage 1 of the run to the table did not come to the undisturbed weights"
        return ClusterRun(kept_dir, started_cluster())

    return SharedRun("the finished checkout", make)


@pytest.fixture(scope="module")
def copied_run(kept_run: SharedRun[ClusterRun], tmp_path_factory: pytest.TempPathFactory) -> SharedRun[ClusterRun]:
    """The finished checkout at another place, one for each file of tests."""

    def make() -> ClusterRun:
        return kept_run().copy(tmp_path_factory.mktemp("copied") / "vlgraft")

    return SharedRun("the copy of the finished checkout", make)


# What the tests ask for. A test that looks at a run is skipped when that run has failed in a test before it.


@pytest.fixture
def cluster(started_cluster: SharedRun[SlurmCluster]) -> SlurmCluster:
    return started_cluster()


@pytest.fixture
def site(prefetched: SharedRun[ClusterRun]) -> ClusterRun:
    return prefetched()


@pytest.fixture
def undisturbed_stage1(undisturbed_stage1_run: SharedRun[dict[str, str]]) -> dict[str, str]:
    return undisturbed_stage1_run()


@pytest.fixture
def whole(whole_run: SharedRun[WholeRun]) -> WholeRun:
    return whole_run()


@pytest.fixture
def finished(whole: WholeRun) -> ClusterRun:
    return whole.run


@pytest.fixture
def kept(kept_run: SharedRun[ClusterRun]) -> ClusterRun:
    return kept_run()


@pytest.fixture
def undisturbed(kept: ClusterRun) -> dict[str, dict[str, str]]:
    """The weights of each stage."""
    return {stage: kept.weights_sha256(stage) for stage in ("stage1", "stage2")}
