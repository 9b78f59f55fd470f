"""The recipe on a real Slurm of two nodes, by the literal command: from `prefetch` to the table, one job cancelled on the way."""

import csv
import errno
import hashlib
import json
import re
from pathlib import Path

import pytest

from helpers.cluster_run import NUM_QUESTIONS, TABLE, ClusterRun, WholeRun
from helpers.shared_run import SharedRun
from helpers.slurm_cluster import ACCOUNT, SlurmCluster

pytestmark = pytest.mark.slow


def test_nodes_reach_each_other_and_no_other_network(cluster: SlurmCluster) -> None:
    code = "import socket; print(socket.socket().connect_ex(('192.0.2.1', 80)))"
    answers = cluster.run("srun", "--partition=gpu", "--nodes=2", "--ntasks=2", "python3", "-c", code).split()
    assert answers == [str(errno.ENETUNREACH)] * 2
    code = "import socket; print(socket.gethostbyname('node1'), socket.getfqdn())"
    assert cluster.run("srun", "-N1", "-w", "node1", "python3", "-c", code).split() == ["127.0.0.1", "localhost"]
    assert cluster.run("srun", "-N1", "-w", "node2", "python3", "-c", code).split() == [
        cluster.address_of("node1"),
        "node2.cluster.example",
    ]
    assert cluster.run("srun", "-N1", "-w", "node1", "getent", "hosts", "node2.cluster.example", check=False) == ""


def test_prefetch_fetches_donors_from_the_hubs_and_records_every_file(
    site: ClusterRun, hub_dirs: SharedRun[dict[str, Path]]
) -> None:
    for name, role in (("vision", "modelscope--lab--vision--master"), ("language", "huggingface--lab--language--main")):
        manifest = json.loads((site.directory / f"resources/donors/{role}.json").read_text())
        recorded = {file["name"]: file["sha256"] for file in manifest["files"]}
        assert any(file.endswith(".safetensors") for file in recorded)
        hub_dir = hub_dirs()[name]
        assert recorded == {file: hashlib.sha256((hub_dir / file).read_bytes()).hexdigest() for file in recorded}


def test_the_whole_recipe_comes_to_its_table(finished: ClusterRun) -> None:
    (overall,) = (row for row in csv.DictReader(finished.table().splitlines()) if row["group"] == "overall")
    assert (overall["model"], overall["num_questions"]) == ("stage2", str(NUM_QUESTIONS))


def test_a_cancelled_job_saves_first_is_submitted_again_and_ends_with_the_undisturbed_weights(
    whole: WholeRun, undisturbed_stage1: dict[str, str]
) -> None:
    assert whole.run.weights_sha256("stage1") == undisturbed_stage1
    first, second = whole.run.starts("stage1")
    states = whole.run.cluster.run("sacct", "-n", "-P", "-X", "--format=JobID,State,Account").split("\n")
    jobs = {line.split("|")[0]: line.split("|")[1:] for line in states if line}
    assert jobs[first["slurm_job_id"]] == ["CANCELLED by 0", ACCOUNT]
    assert jobs[second["slurm_job_id"]] == ["COMPLETED", ACCOUNT]
    whole.run.assert_saved_when_told_to_stop("stage1", 0, whole.cancelled_at_step)


def test_a_stage_on_two_nodes_has_its_processes_on_both(finished: ClusterRun) -> None:
    assert finished.metrics("stage2")["num_processes"] == 4
    hosts = [rank["host"].partition(".")[0] for rank in finished.ranks("stage2")]
    # The rendezvous decides which node has the first ranks.
    assert hosts in (["node1", "node1", "node2", "node2"], ["node2", "node2", "node1", "node1"])


def test_each_rank_has_a_log_of_its_own_and_its_number_in_the_common_one(finished: ClusterRun) -> None:
    watch_dir = finished.watch_dir("stage2")
    assert watch_dir is not None
    logs = list((watch_dir.parent / "rank_logs").glob("start1-*/attempt_0/[01]/stderr.log"))
    assert len(logs) == 4
    assert all(log.stat().st_size for log in logs)
    common = (finished.directory / "logs/results/demo/stage2.log").read_text()
    assert set(re.findall(r"^\[rank(\d)\]: ", common, re.MULTILINE)) == set("0123")


def test_the_questions_are_shared_by_two_jobs_and_put_together(finished: ClusterRun) -> None:
    shares_dir = finished.results / "eval/digits/stage2.shares"
    shares = [json.loads((shares_dir / f"{number}.json").read_text()) for number in range(2)]
    assert [share["num_questions"] for share in shares] == [NUM_QUESTIONS // 2] * 2
    assert len({share["slurm_job_id"] for share in shares}) == 2
    provenance = json.loads((finished.results / "eval/digits/stage2.json").read_text())
    assert (provenance["num_questions"], provenance["num_asked_before"]) == (NUM_QUESTIONS, NUM_QUESTIONS)


def test_a_second_run_has_nothing_to_do(finished: ClusterRun) -> None:
    assert "Nothing to be done" in finished.run(TABLE)


def test_the_dry_run_tells_nodes_gpus_and_walltime_of_each_gpu_step_and_answers_are_put_together_without_a_gpu(
    finished: ClusterRun,
) -> None:
    output = finished.run("-n", "--forceall", TABLE)

    def resources_of(rule: str) -> str:
        found = re.search(rf"^rule {rule}:.*?^    resources: (.*?)$", output, re.MULTILINE | re.DOTALL)
        assert found is not None, output
        return found.group(1)

    for rule, expected in (
        ("stage1", ("nodes=1", "gres=gpu:1", "runtime=30")),
        ("stage2", ("nodes=2", "gres=gpu:2", "runtime=30")),
        ("answer_share", ("nodes=1", "gres=gpu:1", "runtime=30")),
    ):
        assert set(expected) <= set(resources_of(rule).split(", "))
    assert not re.search(r"\bgres=", resources_of("evaluate"))
