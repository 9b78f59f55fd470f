"""Other shapes of stage 2 than two nodes with zero2, a stage that cannot succeed, and requests that Slurm refuses."""

import re

import pytest

from helpers.cluster_run import BATCH_SIZES, OVERLAY, ClusterRun
from helpers.shared_run import SharedRun

pytestmark = [pytest.mark.slow, pytest.mark.full]


@pytest.fixture
def run(copied_run: SharedRun[ClusterRun]) -> ClusterRun:
    """A copy of the finished checkout; each test trains stage 2 anew, or nothing."""
    return copied_run()


def test_a_stage_on_one_node_comes_to_the_same_weights(run: ClusterRun, undisturbed: dict[str, dict[str, str]]) -> None:
    run.forget("stage2")
    with run.overlay(stage2={"num_nodes": 1, "num_processes_per_node": 4}):
        run.run(run.target("stage2"))
    assert len({rank["host"] for rank in run.ranks("stage2")}) == 1
    assert run.metrics("stage2")["num_processes"] == 4
    assert run.weights_sha256("stage2") == undisturbed["stage2"]


def test_a_stage_in_parts_on_two_nodes_comes_to_a_whole_checkpoint(run: ClusterRun) -> None:
    run.forget("stage2")
    with run.overlay(stage2={"deepspeed": "zero3", "flags": OVERLAY["stage2"]["flags"] | {"max_steps": 10}}):
        run.run(run.target("stage2"))
    metrics = run.metrics("stage2")
    assert metrics["num_samples_seen"] == metrics["num_samples_expected"] == 10 * BATCH_SIZES["stage2"] * 4
    assert metrics["tensors_changed"] == metrics["tensors_total"]


def test_a_stage_that_fails_each_time_is_not_tried_for_ever_and_the_login_node_shows_what_the_first_rank_said(
    run: ClusterRun,
) -> None:
    run.forget("stage2")
    # Which keys a scheduler takes only its own code knows.
    flags = OVERLAY["stage2"]["flags"] | {"lr_scheduler_kwargs": '{"no_such_word": 1}'}
    with run.overlay(stage2={"num_processes_per_node": 1, "flags": flags}):
        output = run.run(run.target("stage2"), status=1)
    said = output.partition("stage2 (Slurm job ")[2]
    assert re.search(r"failed:\n  error: stage2: the last 2 starts saved no checkpoint beyond step 0", said)
    # With the lines of its traceback between.
    assert re.search(r"(?s)Last failure: stage2: [^\n]*no_such_word.*all output: [^\n]*stage2.log", said)
    assert len(run.starts("stage2")) == 2


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("SLURM_PARTITION_GPU", "no-such-partition", "invalid partition specified: no-such-partition"),
        ("SLURM_MEM_MB_TRAIN", "99000000", "Memory specification can not be satisfied"),
        ("SLURM_RUNTIME_TRAIN", "99999", "but will never start it: PartitionTimeLimit"),
        ("SLURM_ACCOUNT", "nobody", "Invalid account or account/partition combination specified"),
    ],
)
def test_a_request_that_slurm_refuses_ends_with_slurms_reason(
    run: ClusterRun, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    output = run.run("--force", run.target("stage1"), status=1)
    assert reason in output
    assert not run.cluster.jobs()
