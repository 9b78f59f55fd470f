"""Sites unlike ours: partitions, limits, plugins, prologs and commands that are missing. The step that runs is the graft."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.cluster_run import TABLE, ClusterRun, wait_for_end
from helpers.shared_run import SharedRun
from helpers.slurm_cluster import ACCOUNT, GPU_TYPE, wait_until
from scripts.common.root import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.full]

GRAFT = "results/demo/graft/ledger.tsv"


@pytest.fixture
def run(copied_run: SharedRun[ClusterRun]) -> ClusterRun:
    """A copy of the finished checkout, in which each test makes the graft anew."""
    return copied_run()


def submit(run: ClusterRun, *options: str) -> str:
    """A job of somebody else's; its number."""
    return run.cluster.run("sbatch", "--parsable", "--output=/dev/null", *options, "--wrap", "sleep 3600").strip()


@contextmanager
def grafting(run: ClusterRun) -> Iterator[subprocess.Popen[bytes]]:
    """The graft is made in the background."""
    with run.started("--force", GRAFT) as process:
        yield process


def wait_for_words(run: ClusterRun, process: subprocess.Popen[bytes], words: str) -> None:
    def has_said() -> bool:
        assert process.poll() is None, run.said()[-4000:]
        return re.search(words, run.said()) is not None

    wait_until(has_said, words)


def test_jobs_of_others_with_odd_names_and_comments_stop_nobody(run: ClusterRun) -> None:
    job = submit(run, "--hold", "--comment=two\nlines|and|more", "--job-name=a|b\nc")
    try:
        run.run("--force", GRAFT)
    finally:
        run.cluster.run("scancel", job)


def test_a_job_that_may_start_in_one_of_two_partitions_is_waited_for_and_says_why_it_waits(
    run: ClusterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PARTITION_CPU", "short,cpu")  # its 120 minutes are over the first one's limit
    others = submit(run, "--qos=normal", "--partition=urgent", "--nodes=2", "--exclusive")
    wait_until(lambda: run.cluster.jobs("RUNNING") == [others], "the other job")
    with grafting(run) as process:
        wait_for_words(run, process, r"graft \(Slurm job \d+\) waits: (PartitionTimeLimit|Resources|Priority)")
        shown = subprocess.run(
            run.cluster.inside(".venv/bin/python", "scripts", "workflow.show_jobs"),
            cwd=run.directory, env=os.environ | run.cluster.environment, text=True, capture_output=True, check=True,
        ).stdout  # fmt: skip
        assert re.search(r"^Slurm job \d+ \(a step\) is pending: \w+", shown, re.MULTILINE)
        run.cluster.run("scancel", others)
        wait_for_end(run, process)


def test_a_job_that_its_node_could_not_start_is_submitted_again_and_the_node_named(run: ClusterRun) -> None:
    with run.cluster.broken("node1"), grafting(run) as process:
        wait_for_end(run, process)
        said = run.said()
    assert re.search(r"Slurm holds job '\d+' \((launch failed requeued held|JobHeldAdmin), ", said), said[-4000:]
    assert re.search(r"Nodes that could not start it, or are drained: node1", said)


def test_a_submission_over_the_limit_of_jobs_is_tried_again_until_there_is_room(
    run: ClusterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.cluster.run("sacctmgr", "-i", "add", "qos", "one", "MaxSubmitJobsPerUser=1", "Flags=DenyOnLimit")
    run.cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "qos+=one")
    monkeypatch.setenv("SLURM_QOS", "one")
    others = submit(run, "--qos=one", "--hold")
    with grafting(run) as process:
        wait_for_words(run, process, r"QOSMaxSubmitJobPerUserLimit.*Trying again in")
        run.cluster.run("scancel", others)
        wait_for_end(run, process)


def test_what_a_sites_plugin_says_when_it_refuses_a_job_is_shown_whole_at_the_end(
    run: ClusterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RETRIES", "0")
    with run.cluster.refusing("*** Welcome ***\nname a project of 2026"):
        output = run.run("--force", GRAFT, status=1)
    assert "graft failed:" in output
    end = output.partition("graft failed:")[2]
    assert "Welcome" in end and "name a project of 2026" in end


def test_a_node_whose_tmp_is_full_takes_another_directory(run: ClusterRun) -> None:
    """Snakemake's own scheduler, which each job has, would die there with a traceback."""
    with run.cluster.without_room_in_tmp([run.cluster.root, run.directory, ROOT, Path(sys.prefix)]):
        run.run("--force", GRAFT)
    job_output = max(
        (run.directory / ".snakemake/slurm_logs/rule_graft").glob("*.log"), key=lambda path: path.stat().st_mtime
    )
    assert "tmpdir=/var/tmp" in job_output.read_text()


def hide_accounting(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a site without it, or whose login nodes lack its commands."""
    for command in ("sacct", "sacctmgr", "sshare"):
        (directory / command).write_text("#!/bin/sh\necho no such thing here >&2; exit 1\n")
        (directory / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_a_site_without_sacct_and_sacctmgr_takes_jobs_with_and_without_an_account(
    run: ClusterRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide_accounting(tmp_path, monkeypatch)
    assert "squeue reports how jobs ended" in run.run("--force", GRAFT)
    for name in ("SLURM_ACCOUNT", "SLURM_QOS"):
        monkeypatch.delenv(name)
    run.run("--force", GRAFT)


def test_limits_and_options_of_the_login_shell_do_not_reach_a_job(
    run: ClusterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --array there would be ten grafts, with two seconds of processor time none."""
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-9")
    monkeypatch.setenv("SLURM_EXPORT_ENV", "NONE")
    limited = ["prlimit", "--core=0:0", "--nofile=512:512", *run.command("--force", GRAFT)]
    finished = subprocess.run(
        limited, cwd=run.directory, env=os.environ | run.cluster.environment, text=True, capture_output=True
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert "not passed on to jobs" in finished.stderr + finished.stdout


def test_gpus_of_a_type_with_hyphens_are_asked_for_by_the_option_of_the_site(
    run: ClusterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `--gpus-per-node`; every other stage here asks by `--gres`."""
    monkeypatch.setenv("SLURM_GPU_OPTION", "gpus-per-node")
    monkeypatch.setenv("SLURM_EXTRA_GPU", "--exclusive")
    monkeypatch.setenv("SLURM_MEM_MB_TRAIN", "0")
    run.forget("stage2")
    with run.overlay(stage2={"num_nodes": 1, "num_processes_per_node": 2, "flags": {"max_steps": 2, "save_steps": 2}}):
        run.run(run.target("stage2"))
    job_id = run.starts("stage2")[-1]["slurm_job_id"]
    asked = run.cluster.run("sacct", "-n", "-P", "-X", "-j", job_id, "--format=ReqTRES%200")
    assert f"gres/gpu:{GPU_TYPE}=2" in asked or "gres/gpu=2" in asked
    assert run.cluster.run("sacct", "-n", "-P", "-X", "-j", job_id, "--format=Account").strip() == ACCOUNT


def test_two_nodes_meet_whatever_the_first_one_calls_itself(
    run: ClusterRun, undisturbed: dict[str, dict[str, str]]
) -> None:
    """In the run to the table its name is 127.0.0.1 to itself; here it is one that the other cannot resolve."""
    run.forget("stage2")
    run.cluster.rename("node1", "full")
    try:
        run.run(run.target("stage2"))
    finally:
        run.cluster.rename("node1", "loopback")
    assert {rank["host"] for rank in run.ranks("stage2")} == {"node1.cluster.example", "node2.cluster.example"}
    assert run.weights_sha256("stage2") == undisturbed["stage2"]


def test_the_whole_recipe_comes_to_the_same_table_under_all_of_these_conditions_at_once(
    kept: ClusterRun, undisturbed: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside those that every test here has: names, two partitions, a type of GPU, a QOS, a plugin that rewrites comments."""
    run = kept.copy(tmp_path / "vlgraft")
    for made in ("graft", "stage1", "stage2", "eval"):
        shutil.rmtree(run.results / made)
    shutil.rmtree(run.directory / "work")
    (tmp_path / "bin").mkdir()
    hide_accounting(tmp_path / "bin", monkeypatch)
    others = submit(run, "--hold", "--comment=two\nlines|and|more", "--job-name=a|b\nc")
    with run.started(TABLE) as process:
        with run.cluster.broken("node1"):
            wait_for_words(run, process, "Nodes that could not start it, or are drained: node1")
        with run.cluster.refusing("Slurm is temporarily unable to accept a job"):
            wait_for_words(run, process, "temporarily unable to accept.*Trying again in")
            with run.cluster.without_controller():
                wait_for_words(run, process, "Unable to contact slurm controller.*Trying again in")
        wait_for_end(run, process)
    run.cluster.run("scancel", others)
    assert run.table() == kept.table()
    assert {stage: run.weights_sha256(stage) for stage in undisturbed} == undisturbed
