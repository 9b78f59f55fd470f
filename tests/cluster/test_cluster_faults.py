"""One training that suffers every fault of a cluster in turn, and then the run to the table with a killed rank.

Each test disturbs the training where it finds it, standing still at a step of its own, and sees it go on. At the end the weights
are the undisturbed ones. When a test fails it is not known how the training stands, so the tests after it are skipped.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helpers.cluster_run import TABLE, ClusterRun, end, wait_for_end
from helpers.processes import is_running
from helpers.shared_run import SharedRun, first_line
from helpers.slurm_cluster import LIMIT_S, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full]


@dataclass
class DisturbedTraining:
    """Stage 1 in a copy of the finished checkout, as far as the tests before have come with it."""

    run: ClusterRun
    process: subprocess.Popen[bytes] | None = None
    failure: str | None = None
    faults: list[str] = field(default_factory=list)

    @contextmanager
    def fault(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Around one test; gives the workflow that trains, started anew where the fault before has ended it."""
        if self.failure:
            pytest.skip(f"the training was lost before: {self.failure}")
        try:
            if self.process is None:
                self.process = self.run.start(self.run.target("stage1"))
            yield self.process
        except BaseException as error:
            self.failure = f"{name}: {first_line(error)}"
            raise
        self.faults.append(name)


@pytest.fixture(scope="module")
def disturbed_run(
    kept_run: SharedRun[ClusterRun], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedRun[DisturbedTraining]]:
    made: list[DisturbedTraining] = []

    def make() -> DisturbedTraining:
        made.append(DisturbedTraining(kept_run().copy(tmp_path_factory.mktemp("disturbed") / "vlgraft")))
        made[0].run.forget("stage1")
        return made[0]

    yield SharedRun("the copy of the finished checkout", make)
    for training in made:
        if training.process is not None:
            end(training.process)


@pytest.fixture
def training(disturbed_run: SharedRun[DisturbedTraining]) -> DisturbedTraining:
    return disturbed_run()


def test_a_preempted_job_that_slurm_does_not_put_back_is_submitted_again(training: DisturbedTraining) -> None:
    run = training.run
    with training.fault("preemption") as process:
        with run.held("stage1", 12, process) as reached:
            first = run.starts("stage1")[-1]
            num_failures = len(run.failures("stage1"))
            urgent = run.cluster.inside(
                "srun", "--partition=urgent", "--qos=normal", "--nodes=2", "--exclusive", "--gres=gpu:4", "true"
            )
            preempting = subprocess.Popen(urgent)
            run.wait_for_stop("stage1", num_failures)
        assert preempting.wait(timeout=LIMIT_S) == 0
        states = run.cluster.run("squeue", "-h", "-t", "all", "-o", "%T", "-j", first["slurm_job_id"])
        assert states.strip() == "PREEMPTED"
        with run.held("stage1", reached + 5, process):
            second = run.starts("stage1")[-1]
        assert first["slurm_job_id"] != second["slurm_job_id"]
        run.assert_saved_when_told_to_stop("stage1", len(run.starts("stage1")) - 2, reached)


def test_a_stage_cut_twice_by_its_walltime_goes_on_in_a_third_job(training: DisturbedTraining) -> None:
    run = training.run
    with training.fault("walltime") as process:
        num_starts = len(run.starts("stage1")) or 1
        reached = []
        for step in (30, 45):
            with run.held(
                "stage1", step, process
            ) as held_at:  # or a fast machine would be through before the time is up
                reached.append(held_at)
                job_id = run.starts("stage1")[-1]["slurm_job_id"]
                num_failures = len(run.failures("stage1"))
                run.cluster.run("scontrol", "update", f"JobId={job_id}", "TimeLimit=1")
                run.wait_for_stop("stage1", num_failures)
        with run.held("stage1", reached[-1] + 5, process):
            starts = run.starts("stage1")[num_starts - 1 :]
        assert len({start["slurm_job_id"] for start in starts}) == len(starts) == 3
        for number, held_at in enumerate(reached, start=num_starts - 1):
            run.assert_saved_when_told_to_stop("stage1", number, held_at)


def test_a_stage_survives_the_death_of_its_node(training: DisturbedTraining) -> None:
    run, cluster = training.run, training.run.cluster
    with training.fault("death of a node") as process:
        with run.held("stage1", 62, process) as reached:
            first = run.starts("stage1")[-1]
            saved = run.saved_step("stage1")
            node = first["host"].partition(".")[0]
            cluster.kill_node(node)
        with run.held("stage1", reached + 5, process):
            second = run.starts("stage1")[-1]
        assert 0 < saved == second["resume_step"]
        assert first["host"] != second["host"]
        cluster.start_node(node)
        wait_until(lambda: cluster.num_ready_nodes() == len(cluster.nodes), "the node's return")


def test_ctrl_c_cancels_the_job_which_saves_first_and_the_same_command_goes_on(training: DisturbedTraining) -> None:
    run, cluster = training.run, training.run.cluster
    with training.fault("Ctrl-C") as process:
        with run.held("stage1", 80, process) as reached:
            num_failures = len(run.failures("stage1"))
            os.killpg(process.pid, signal.SIGINT)
            run.wait_for_stop("stage1", num_failures)
        assert process.wait(timeout=LIMIT_S) != 0
        wait_until(lambda: not cluster.jobs(), "the end of the job")
        process = training.process = run.start(run.target("stage1"))
        with run.held("stage1", reached + 5, process):
            number = len(run.starts("stage1")) - 2
        run.assert_saved_when_told_to_stop("stage1", number, reached)


def test_the_same_command_is_refused_while_the_first_lives_and_waits_for_its_job_when_it_was_killed(
    training: DisturbedTraining,
) -> None:
    run = training.run
    with training.fault("killed launcher") as first:
        with run.held("stage1", 95, first):
            num_starts = len(run.starts("stage1"))
            output = run.run(run.target("stage1"), status=1)
            assert re.search(rf"Snakemake runs in this directory already: process {first.pid} on ", output)
            end(first)
            second = training.process = run.start(run.target("stage1"))
            words = re.compile(r"Slurm job \d+ \(stage1.*\) of an earlier run is running")

            def waits() -> bool:
                assert second.poll() is None, run.said()[-4000:]
                return words.search(run.said()) is not None

            wait_until(waits, "the second command's word that it waits for the job")
        wait_for_end(run, second)
        training.process = None
        assert len(run.starts("stage1")) == num_starts


def test_after_all_these_faults_the_weights_are_the_undisturbed_ones_and_nothing_is_counted_twice(
    training: DisturbedTraining, undisturbed: dict[str, dict[str, str]]
) -> None:
    run = training.run
    with training.fault("comparison"):
        if training.process is not None:  # none of them was asked for that ends it
            wait_for_end(run, training.process)
            training.process = None
        assert run.weights_sha256("stage1") == undisturbed["stage1"]
        metrics = run.metrics("stage1")
        assert [resume["step"] for resume in metrics["resumes"]] == [
            start["resume_step"] for start in run.starts("stage1")[1:]
        ]
        assert metrics["num_samples_seen"] == metrics["num_samples_expected"]
        assert [entry["step"] for entry in metrics["losses"]] == sorted({entry["step"] for entry in metrics["losses"]})


@pytest.fixture(scope="module")
def run_with_a_killed_rank(
    disturbed_run: SharedRun[DisturbedTraining],
) -> SharedRun[tuple[ClusterRun, int]]:
    """Stage 2 anew on two nodes, one rank of it killed, and on to the table by the same command; the step that was saved."""

    def make() -> tuple[ClusterRun, int]:
        training = disturbed_run()
        run = training.run
        with training.fault("killed rank"):
            run.forget("stage2")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("NCCL_SOCKET_IFNAME", "lo")
                with run.started(TABLE) as process:
                    with run.held("stage2", 15, process):
                        ranks = run.ranks("stage2")
                        assert len(ranks) == 4
                        for rank in ranks:  # what the user has set for NCCL reaches both nodes
                            environment = Path(f"/proc/{rank['pid']}/environ").read_bytes().split(b"\0")
                            assert b"NCCL_SOCKET_IFNAME=lo" in environment
                        saved = run.saved_step("stage2")
                        os.kill(ranks[3]["pid"], signal.SIGKILL)
                    wait_until(lambda: not any(is_running(rank["pid"]) for rank in ranks), "the end of all ranks")
                    wait_for_end(run, process)
        return run, saved

    return SharedRun("the run with a killed rank", make)


def test_a_killed_rank_ends_all_ranks_and_the_stage_goes_on_to_the_same_weights(
    run_with_a_killed_rank: SharedRun[tuple[ClusterRun, int]], undisturbed: dict[str, dict[str, str]]
) -> None:
    run, saved = run_with_a_killed_rank()
    assert run.weights_sha256("stage2") == undisturbed["stage2"]
    assert saved > 0
    assert [start["resume_step"] for start in run.starts("stage2")] == [0, saved]


def test_after_all_these_faults_the_table_is_the_undisturbed_one(
    run_with_a_killed_rank: SharedRun[tuple[ClusterRun, int]], kept: ClusterRun
) -> None:
    run, _ = run_with_a_killed_rank()
    assert run.table() == kept.table()
    assert run.answers() == kept.answers()
