"""One run in a directory at a time, and what becomes of the jobs of a run that is gone."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts.common.errors import UserError
from scripts.train.slurm_commands import ask
from scripts.workflow import show_jobs
from scripts.workflow.one_run import claim_directory, end_leftover_jobs, jobs_of

NAME = "0c0ffee0-1234-4abc-8def-0123456789ab"
CLAIM = """
import sys, time
from pathlib import Path
sys.path.insert(0, ".")
from scripts.workflow.one_run import claim_directory
claim_directory(Path(sys.argv[1]))
print("claimed", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def holder(root: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed `tmp_path`."""
    command = [sys.executable, "-c", CLAIM, str(tmp_path / "vlgraft.lock")]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_told_whose_the_first_one_is(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"already: process {holder.pid} on .*, user .*, since .*wait for it to end"):
        claim_directory(tmp_path / "vlgraft.lock")


def test_a_directory_of_somebody_else_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "vlgraft.lock").symlink_to("vlgraft.lock")  # as little to be opened as another user's file
    with pytest.raises(
        UserError, match=r"vlgraft.lock: cannot be opened \(Too many levels.*last used by another process"
    ):
        claim_directory(tmp_path / "vlgraft.lock")


@pytest.mark.parametrize(("make", "what"), [(os.mkdir, "a directory"), (os.mkfifo, "a pipe, a socket or a device")])
def test_what_is_no_file_in_the_place_of_the_lock_is_to_be_removed(
    tmp_path: Path, make: Callable[[Path], None], what: str
) -> None:
    make(tmp_path / "vlgraft.lock")
    with pytest.raises(UserError, match=rf"vlgraft.lock: {what} found; expected the file .*; remove it"):
        claim_directory(tmp_path / "vlgraft.lock")


def test_a_killed_run_leaves_no_lock(holder: subprocess.Popen[str], root: Path, tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    # In a process of its own: here the claim would last until the end of the tests.
    claim = CLAIM.replace("time.sleep(3600)", "")
    finished = subprocess.run(
        [sys.executable, "-c", claim, str(tmp_path / "vlgraft.lock")], cwd=root, capture_output=True, text=True
    )
    assert finished.stdout == "claimed\n", finished.stderr


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for squeue and scancel: jobs are the lines of a file, cancelling empties it. The real ones: tests/cluster."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (tmp_path / ".snakemake/slurm_logs").mkdir(parents=True)
    jobs_path = tmp_path / "jobs"
    programs = {"squeue": f"cat {jobs_path}", "scancel": f'echo "$@" > {tmp_path}/cancelled; : > {jobs_path}'}
    for name, line in programs.items():
        path = bin_dir / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    return jobs_path


def test_only_jobs_of_snakemake_in_this_directory_count(slurm: Path, tmp_path: Path) -> None:
    slurm.write_text(
        f"1|RUNNING|None|{NAME}|{tmp_path}\n2|RUNNING|None|{NAME}|/elsewhere\n3|RUNNING|None|my own job|{tmp_path}\n"
        f"4|PENDING|None|of a project_{NAME}|{tmp_path}\n5|PENDING|None|project_{NAME}|{tmp_path}\n"
    )
    assert [job.job_id for job in jobs_of(tmp_path)] == ["1", "5"]


def test_jobs_of_others_with_odd_names_and_directories_are_passed_over(slurm: Path, tmp_path: Path) -> None:
    odd = b"6|RUNNING|None|a|b|c|/x\n7|RUNNING|None|two\nlines|" + str(tmp_path).encode() + b"\n\xff\xfe|\n|||\n\n"
    slurm.write_bytes(odd + f"8|RUNNING|None|{NAME}|{tmp_path}\n".encode())
    assert [job.job_id for job in jobs_of(tmp_path)] == ["8"]


def test_a_squeue_that_hangs_does_not_hang_the_start(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (slurm.parent / "bin/squeue").write_text("#!/bin/sh\nexec sleep 3600\n")
    monkeypatch.setattr("scripts.workflow.one_run.ask", partial(ask, limit_s=0.2))
    with pytest.raises(UserError, match=r"squeue: failed \(no answer within 0 s\)"):
        jobs_of(tmp_path)


def test_jobs_are_shown_with_why_they_wait(
    slurm: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.write_text(
        f"7|RUNNING|None|{NAME}|{tmp_path}\n8|PENDING|Priority|{NAME}|{tmp_path}\n"
        f"9|PENDING|(launch failed requeued held)|{NAME}|{tmp_path}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["show_jobs"])
    show_jobs.main()
    assert capsys.readouterr().out.splitlines() == [
        "Slurm job 7 (a step) is running",
        "Slurm job 8 (a step) is pending: Priority, others are before it",
        "Slurm job 9 (a step) is pending: launch failed requeued held, its node could not start it",
    ]


def test_a_job_that_has_not_begun_is_cancelled(slurm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.write_text(f"7|PENDING|None|{NAME}|{tmp_path}\n")
    end_leftover_jobs(tmp_path)
    assert (tmp_path / "cancelled").read_text().split() == ["--state=PENDING", "7"]
    assert "Slurm job 7 of an earlier run has not begun" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_an_error(slurm: Path, tmp_path: Path) -> None:
    (slurm.parent / "bin/squeue").write_text("#!/bin/sh\necho Unable to contact >&2; exit 1\n")
    with pytest.raises(UserError, match=r"squeue: failed \(Unable to contact\)"):
        jobs_of(tmp_path)


def test_slurm_is_not_asked_where_nothing_was_given_to_it(slurm: Path, tmp_path: Path) -> None:
    (slurm.parent / "bin/squeue").write_text("#!/bin/sh\necho no cluster here >&2; exit 1\n")
    (tmp_path / ".snakemake/slurm_logs").rmdir()
    assert jobs_of(tmp_path) == []


def test_a_directory_with_jobs_is_not_run_where_slurm_cannot_be_asked(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"squeue: failed \(No such file or directory\), so jobs .*slurm_logs shows"):
        jobs_of(tmp_path)


@pytest.mark.parametrize("state", ["REQUEUE_HOLD", "SPECIAL_EXIT"])
def test_a_job_that_is_held_after_a_failed_start_is_cancelled_though_slurm_does_not_call_it_pending(
    slurm: Path, tmp_path: Path, state: str
) -> None:
    slurm.write_text(f"7|{state}|None|{NAME}|{tmp_path}\n")
    end_leftover_jobs(tmp_path)
    assert (tmp_path / "cancelled").read_text().split() == ["7"]


def test_a_job_that_runs_is_waited_for_and_not_cancelled(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.write_text(f"7|RUNNING|None|{NAME}|{tmp_path}\n")
    log_path = tmp_path / ".snakemake/slurm_logs/rule_evaluate/digits/stage2/7.log"
    log_path.parent.mkdir(parents=True)
    log_path.touch()
    looks: list[float] = []

    def sleep(duration_s: float) -> None:
        looks.append(duration_s)
        if len(looks) == 3:
            slurm.write_text("")  # it has ended

    # Not time.sleep itself, by which subprocess waits.
    monkeypatch.setattr("scripts.workflow.one_run.time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    end_leftover_jobs(tmp_path)
    assert len(looks) == 3
    assert not (tmp_path / "cancelled").exists()
    assert capsys.readouterr().err.count("Slurm job 7 (evaluate digits stage2) of an earlier run is running") == 1
