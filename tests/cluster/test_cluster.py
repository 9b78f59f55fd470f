"""The recipe on a real Slurm of two nodes, with the literal command: to the table, and through every fault of a cluster."""

import csv
import errno
import hashlib
import json
import os
import re
import signal
from pathlib import Path

import pytest

from helpers.cluster_run import OVERLAY, ClusterRun, halted, wait_for_end, wait_for_step
from helpers.processes import is_running
from helpers.slurm_cluster import SlurmCluster, wait_until

pytestmark = pytest.mark.slow


def test_prefetch_fetches_donors_from_the_hubs_and_records_every_file(site: ClusterRun, hub_dir: Path) -> None:
    for name, role in (("vision", "modelscope--lab--vision--master"), ("language", "huggingface--lab--language--main")):
        manifest = json.loads((site.directory / f"resources/donors/{role}.json").read_text())
        recorded = {file["name"]: file["sha256"] for file in manifest["files"]}
        assert any(file.endswith(".safetensors") for file in recorded)
        assert recorded == {file: hashlib.sha256((hub_dir / name / file).read_bytes()).hexdigest() for file in recorded}


def test_nodes_have_no_network(cluster: SlurmCluster) -> None:
    code = "import socket; print(socket.socket().connect_ex(('192.0.2.1', 80)))"
    answers = cluster.run("srun", "--partition=gpu", "--nodes=2", "--ntasks=2", "python3", "-c", code).split()
    assert answers == [str(errno.ENETUNREACH)] * 2


def test_the_whole_recipe_comes_to_its_table(finished: ClusterRun, undisturbed_table: str) -> None:
    (overall,) = (row for row in csv.DictReader(undisturbed_table.splitlines()) if row["group"] == "overall")
    assert (overall["model"], overall["num_questions"]) == ("stage2", "400")


def test_a_stage_on_two_nodes_has_its_processes_on_both(finished: ClusterRun) -> None:
    assert finished.metrics("stage2")["num_processes"] == 4
    hosts = [rank["host"] for rank in finished.ranks("stage2")]
    # Which node has the first ranks is for the rendezvous to say.
    assert hosts in (["node1", "node1", "node2", "node2"], ["node2", "node2", "node1", "node1"])


def test_the_questions_are_shared_by_two_jobs_and_put_together_without_a_gpu(finished: ClusterRun) -> None:
    shares_dir = finished.results / "eval/digits/stage2.shares"
    shares = [json.loads((shares_dir / f"{number}.json").read_text()) for number in range(2)]
    assert [share["num_questions"] for share in shares] == [200, 200]
    assert len({share["slurm_job_id"] for share in shares}) == 2
    provenance = json.loads((finished.results / "eval/digits/stage2.json").read_text())
    assert (provenance["num_questions"], provenance["num_asked_before"]) == (400, 400)
    output = finished.run("-n", "--forceall", "results/demo/eval/digits.csv")
    resources = re.search(r"^rule evaluate:.*?^    resources: (.*?)$", output, re.MULTILINE | re.DOTALL)
    assert resources is not None
    assert "gres" not in resources.group(1)


def test_each_rank_has_a_log_of_its_own_and_its_number_in_the_common_one(finished: ClusterRun) -> None:
    watch_dir = finished.watch_dir("stage2")
    assert watch_dir is not None
    logs = list((watch_dir.parent / "rank_logs").glob("start1-*/attempt_0/[01]/stderr.log"))
    assert len(logs) == 4
    assert all(log.stat().st_size for log in logs)
    common = (finished.directory / "logs/results/demo/stage2.log").read_text()
    assert set(re.findall(r"^\[rank(\d)\]: ", common, re.MULTILINE)) == set("0123")


def test_a_second_run_has_nothing_to_do(finished: ClusterRun) -> None:
    assert "Nothing to be done" in finished.run("results/demo/eval/digits.csv")


def test_the_dry_run_tells_nodes_gpus_and_walltime_of_each_gpu_step(finished: ClusterRun) -> None:
    output = finished.run("-n", "--forceall", "results/demo/eval/digits.csv")
    for rule, expected in (
        ("stage1", ("nodes=1", "gres=gpu:1", "runtime=30")),
        ("stage2", ("nodes=2", "gres=gpu:2", "runtime=30")),
        ("answer_share", ("nodes=1", "gres=gpu:1", "runtime=30")),
    ):
        resources = re.search(rf"^rule {rule}:.*?^    resources: (.*?)$", output, re.MULTILINE | re.DOTALL)
        assert resources is not None, output
        assert set(expected) <= set(resources.group(1).split(", "))


def test_a_stage_on_one_node_comes_to_the_same_weights(
    finished: ClusterRun, undisturbed: dict[str, dict[str, str]]
) -> None:
    finished.forget("stage2")
    finished.write_overlay(stage2={"num_nodes": 1, "num_processes_per_node": 4})
    finished.run(finished.target("stage2"))
    assert {rank["host"] for rank in finished.ranks("stage2")} < {"node1", "node2"}
    assert finished.metrics("stage2")["num_processes"] == 4
    assert finished.weights_sha256("stage2") == undisturbed["stage2"]
    finished.write_overlay()


def test_a_stage_in_parts_on_two_nodes_comes_to_a_whole_checkpoint(finished: ClusterRun) -> None:
    finished.forget("stage2")
    finished.write_overlay(stage2={"deepspeed": "zero3", "flags": OVERLAY["stage2"]["flags"] | {"max_steps": 10}})
    finished.run(finished.target("stage2"))
    metrics = finished.metrics("stage2")
    assert metrics["num_samples_seen"] == metrics["num_samples_expected"] == 10 * 16 * 4
    assert metrics["tensors_changed"] == metrics["tensors_total"]
    finished.write_overlay()


def test_a_killed_rank_ends_all_ranks_and_the_stage_goes_on_to_the_same_weights(
    finished: ClusterRun, undisturbed: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished.forget("stage2")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    with finished.started(finished.target("stage2")) as process:
        wait_for_step(finished, "stage2", 22, process)
        ranks = finished.ranks("stage2")
        for rank in ranks:  # what the user has set for NCCL reaches both nodes
            assert b"NCCL_SOCKET_IFNAME=lo" in Path(f"/proc/{rank['pid']}/environ").read_bytes().split(b"\0")
        os.kill(ranks[3]["pid"], signal.SIGKILL)
        wait_until(lambda: not any(is_running(rank["pid"]) for rank in ranks), 60, "the end of all ranks")
        wait_for_end(finished, process)
    assert finished.weights_sha256("stage2") == undisturbed["stage2"]
    assert [start["resume_step"] for start in finished.starts("stage2")] == [0, 20]


def test_a_preempted_job_that_slurm_does_not_put_back_is_submitted_again(
    finished: ClusterRun, undisturbed: dict[str, dict[str, str]], cluster: SlurmCluster
) -> None:
    finished.forget("stage1")
    with finished.started(finished.target("stage1")) as process:
        wait_for_step(finished, "stage1", 25, process)
        cluster.run("srun", "--partition=urgent", "--nodes=2", "--exclusive", "--gres=gpu:4", "true")
        (first,) = finished.starts("stage1")
        assert cluster.run("squeue", "-h", "-t", "all", "-o", "%T", "-j", first["slurm_job_id"]).strip() == "PREEMPTED"
        wait_for_end(finished, process)
    assert finished.weights_sha256("stage1") == undisturbed["stage1"]
    first, second = finished.starts("stage1")
    assert first["slurm_job_id"] != second["slurm_job_id"]
    assert second["resume_step"] >= 20


def test_the_same_command_is_refused_while_the_first_lives_and_waits_for_its_job_when_it_was_killed(
    finished: ClusterRun, undisturbed: dict[str, dict[str, str]]
) -> None:
    finished.forget("stage1")
    with finished.started(finished.target("stage1")) as process:
        wait_for_step(finished, "stage1", 5, process)
        output = finished.run(finished.target("stage1"), status=1)
        assert re.search(rf"at work in this directory already: process {process.pid} on ", output)
        os.killpg(process.pid, signal.SIGKILL)
    output = finished.run(finished.target("stage1"))
    assert re.search(r"Slurm job \d+ \(stage1.*\) of an earlier run is running", output)
    assert finished.weights_sha256("stage1") == undisturbed["stage1"]
    assert len(finished.starts("stage1")) == 1


def test_ctrl_c_cancels_the_job_which_saves_first_and_the_same_command_goes_on(
    finished: ClusterRun, undisturbed: dict[str, dict[str, str]], cluster: SlurmCluster
) -> None:
    finished.forget("stage1")
    with finished.started(finished.target("stage1")) as process:
        wait_for_step(finished, "stage1", 5, process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=120) != 0
    wait_until(lambda: not cluster.jobs(), 60, "the end of the job")
    finished.run(finished.target("stage1"))
    assert finished.weights_sha256("stage1") == undisturbed["stage1"]
    resume_step = finished.starts("stage1")[1]["resume_step"]
    assert resume_step >= 5
    assert f"stopped by SIGTERM; saved at step {resume_step} of 60" in finished.failures("stage1")[0]["message"]


def test_a_stage_cut_twice_by_its_walltime_takes_three_jobs_and_ends_with_the_same_weights(
    finished: ClusterRun, undisturbed: dict[str, dict[str, str]], cluster: SlurmCluster
) -> None:
    finished.forget("stage1")
    with finished.started(finished.target("stage1")) as process:
        for step in (5, 25):
            wait_for_step(finished, "stage1", step, process)
            start = finished.starts("stage1")[-1]
            watch_dir = finished.watch_dir("stage1")
            assert watch_dir is not None
            with halted(finished.ranks("stage1")):  # or a fast machine would be through before the time is up
                cluster.run("scontrol", "update", f"JobId={start['slurm_job_id']}", "TimeLimit=1")
                wait_until((watch_dir / "stop").exists, 120, "the signal before the walltime's end")
        wait_for_end(finished, process)
    assert finished.weights_sha256("stage1") == undisturbed["stage1"]
    starts = finished.starts("stage1")
    assert len({start["slurm_job_id"] for start in starts}) == len(starts) == 3
    for resumed, failure in zip(starts[1:], finished.failures("stage1"), strict=True):
        assert f"stopped by SIGTERM; saved at step {resumed['resume_step']} of 60" in failure["message"]
    metrics = finished.metrics("stage1")
    assert [resume["step"] for resume in metrics["resumes"]] == [start["resume_step"] for start in starts[1:]]
    assert metrics["num_samples_seen"] == metrics["num_samples_expected"]
    assert [entry["step"] for entry in metrics["losses"]] == sorted({entry["step"] for entry in metrics["losses"]})


def test_a_stage_survives_the_death_of_its_node(
    finished: ClusterRun, undisturbed: dict[str, dict[str, str]], cluster: SlurmCluster
) -> None:
    finished.forget("stage1")
    with finished.started(finished.target("stage1")) as process:
        wait_for_step(finished, "stage1", 25, process)
        node = finished.starts("stage1")[0]["host"]
        cluster.kill_node(node)
        wait_for_end(finished, process)
    assert finished.weights_sha256("stage1") == undisturbed["stage1"]
    first, second = finished.starts("stage1")
    assert first["host"] != second["host"]
    assert second["resume_step"] == 20
    cluster.start_node(node)
    wait_until(lambda: cluster.num_ready_nodes() == len(cluster.nodes), 60, "the node's return")


def test_after_all_these_faults_the_table_is_the_undisturbed_one(finished: ClusterRun, undisturbed_table: str) -> None:
    finished.run("results/demo/eval/digits.csv")
    assert finished.table() == undisturbed_table


def test_a_stage_that_fails_each_time_is_not_tried_for_ever_and_the_login_node_shows_what_the_first_rank_said(
    finished: ClusterRun,
) -> None:
    finished.forget("stage2")
    finished.write_overlay(stage2={"flags": OVERLAY["stage2"]["flags"] | {"max_length": 8}})
    output = finished.run(finished.target("stage2"), status=1)
    said = output.partition("stage2, Slurm job ")[2]
    assert re.search(r"said:\n  error: stage2: 2 starts in a row came to no checkpoint beyond step 0", said)
    assert re.search(r"It said: stage2: .*set max_length or truncation_strategy \(all output: .*stage2.log\)", said)
    assert len(finished.starts("stage2")) == 2
    finished.write_overlay()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("SLURM_PARTITION_GPU", "no-such-partition", "invalid partition specified: no-such-partition"),
        ("SLURM_MEM_MB_TRAIN", "99000000", "Memory specification can not be satisfied"),
        ("SLURM_RUNTIME_TRAIN", "99999", "but will never start it: PartitionTimeLimit"),
    ],
)
def test_a_request_that_slurm_refuses_ends_with_slurms_reason(
    finished: ClusterRun, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    output = finished.run("--force", finished.target("stage1"), status=1)
    assert reason in output
    assert not finished.cluster.jobs()
