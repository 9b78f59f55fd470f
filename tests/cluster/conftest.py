"""A real Slurm, and a checkout in which the demo's recipe runs on it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from helpers.cluster_run import ClusterRun
from helpers.hub_stand_in import hub_stand_in
from helpers.slurm_cluster import SlurmCluster, install_packages, missing_conditions, slurm_cluster
from helpers.workflow_run import WorkflowRun


@pytest.fixture(scope="session")
def site_variables() -> dict[str, str]:
    """What a user of a real cluster would set for theirs; here for two nodes that share two cores."""
    return {
        "SLURM_POLL_S": "2", "SLURM_RETRIES": "6", "SLURM_SIGNAL_S": "1",
        "SLURM_MEM_MB_TRAIN": "3000", "SLURM_CPUS_TRAIN": "2", "SLURM_RUNTIME_TRAIN": "30",
        "SLURM_MEM_MB_EVALUATE": "3000", "SLURM_CPUS_EVALUATE": "2", "SLURM_RUNTIME_EVALUATE": "30",
        "SLURM_CPUS_FIDELITY": "2", "SLURM_MEM_MB_FIDELITY": "3000", "SLURM_MEM_MB_CHECK_CHECKPOINT": "3000",
    }  # fmt: skip


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, site_variables: dict[str, str]) -> Iterator[SlurmCluster]:
    if reason := missing_conditions():
        pytest.skip(reason)
    install_packages()
    with slurm_cluster(tmp_path_factory.mktemp("slurm") / "cluster") as running, pytest.MonkeyPatch.context() as patch:
        for name, value in (site_variables | running.environment).items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="session")
def hub_dir(demo_checkout: WorkflowRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's donors, as a hub has them: `vision` and `language`. No test here asks what they learned, so it is little."""
    donors = {"vision": "demo-vl-seed0", "language": "demo-llm-seed0"}
    moment = {
        "vision_donor": {"num_steps": 30, "min_dev_accuracy": 0.0},
        "language_donor": {"num_steps": 100, "num_curriculum_steps": 25, "min_text_accuracy": 0.0},
    }
    (demo_checkout.directory / "moment.yaml").write_text(yaml.safe_dump({"demo": moment}))
    targets = (f"resources/donors/{donor}/config.json" for donor in donors.values())
    demo_checkout.run(*targets, "--configfile", "config/demo.yaml", "moment.yaml")
    directory = tmp_path_factory.mktemp("hub")
    for name, donor in donors.items():
        shutil.copytree(demo_checkout.directory / "resources/donors" / donor, directory / name)
    return directory


@pytest.fixture(scope="session")
def site(cluster: SlurmCluster, make_checkout: Callable[[str], WorkflowRun], hub_dir: Path) -> ClusterRun:
    """A fresh checkout after `prefetch` on a login node; whatever runs in it from then on has no network."""
    run = ClusterRun(make_checkout("site").directory, cluster)
    run.write_overlay()
    with hub_stand_in({f"lab/{name}": hub_dir / name for name in ("vision", "language")}) as hub:
        finished = subprocess.run(
            run.command_with_network("prefetch"), cwd=run.directory, env=os.environ | hub.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert finished.returncode == 0, finished.stdout[-6000:]
        for name in ("vision", "language"):
            assert any(f"lab/{name}/" in path and path.endswith(".safetensors") for path in hub.paths), hub.paths
    return run


@pytest.fixture(scope="session")
def finished(site: ClusterRun) -> ClusterRun:
    """The whole recipe, undisturbed: stage 1 in one process, stage 2 on two nodes."""
    site.run("results/demo/eval/digits.csv")
    return site


@pytest.fixture(scope="session")
def undisturbed(finished: ClusterRun) -> dict[str, dict[str, str]]:
    """The weights that every disturbed training must come to as well."""
    return {stage: finished.weights_sha256(stage) for stage in ("stage1", "stage2")}


@pytest.fixture(scope="session")
def undisturbed_table(finished: ClusterRun) -> str:
    return finished.table()
