"""Why a job waits, and when it is hopeless: where every partition that it names forbids it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.workflow.waiting_jobs import WaitingJob, is_hopeless, meaning, minutes_of, waiting_jobs

PARTITIONS = {
    "short": "PartitionName=short MaxNodes=UNLIMITED MaxTime=01:00:00 State=UP",
    "long": "PartitionName=long MaxNodes=UNLIMITED MaxTime=7-00:00:00 State=UP",
    "small": "PartitionName=small MaxNodes=2 MaxTime=UNLIMITED State=UP",
    "all": "PartitionName=all MaxNodes=UNLIMITED MaxTime=UNLIMITED State=UP",
}


@pytest.fixture(autouse=True)
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Stands in for a command of Slurm's by a line of shell; scontrol knows PARTITIONS."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(command: str, line: str) -> None:
        (tmp_path / command).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / command).chmod(0o755)

    for name, line in PARTITIONS.items():
        (tmp_path / f"partition-{name}").write_text(line + "\n")
    write("scontrol", f'cat {tmp_path}/partition-"$4"')
    return write


def job(reason: str, *partitions: str, num_nodes: int = 1, hours: float | None = 24) -> WaitingJob:
    return WaitingJob("1", num_nodes, None if hours is None else hours * 60, partitions, reason)


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        (job("PartitionTimeLimit", "short"), True),
        (job("PartitionTimeLimit", "short", "long"), False),
        (job("PartitionTimeLimit", "long", "short"), False),
        (job("PartitionTimeLimit", "short", "long", hours=24 * 8), True),
        (job("PartitionTimeLimit", "short", "long", "all", hours=24 * 8), False),
        (job("PartitionTimeLimit", "short", "unknown"), False),
        (job("PartitionTimeLimit", "short", "small", num_nodes=4), True),
        (job("PartitionNodeLimit", "small", num_nodes=4), True),
        (job("PartitionNodeLimit", "small", num_nodes=2), False),
        (job("PartitionNodeLimit", "small", "all", num_nodes=4), False),
        (job("QOSMaxGRESPerJob", "long"), True),
        (job("QOSMaxGRESPerJob", "long", "all"), False),
        (job("AccountNotAllowed", "long", "all"), False),
        (job("InvalidAccount", "long", "all"), True),
        (job("InvalidQOS", "long"), True),
        (job("Priority", "long"), False),
        (job("QOSMaxGRESPerUser", "long"), False),
        (job("AssocGrpGRES", "long"), False),
    ],
)
def test_a_job_is_hopeless_only_where_every_partition_forbids_it(waiting: WaitingJob, expected: bool) -> None:
    assert is_hopeless(waiting) is expected


def test_nothing_is_hopeless_by_a_limit_that_slurm_does_not_tell(slurm: Callable[[str, str], None]) -> None:
    slurm("scontrol", "exit 1")
    assert not is_hopeless(job("PartitionNodeLimit", "small", num_nodes=4))
    assert is_hopeless(job("PartitionTimeLimit", "short")), "Slurm's own word, and there is one partition"


def test_jobs_are_read_whatever_their_reason_holds(slurm: Callable[[str, str], None], tmp_path: Path) -> None:
    slurm(
        "squeue",
        f"echo \"$@\" > {tmp_path}/asked; echo '7|2|1-00:00:00|short,long|(ReqNodeNotAvail, UnavailableNodes:a|b)';"
        "echo '8_3|1|UNLIMITED|gpu|None'; echo garbage",
    )
    assert waiting_jobs("run") == [
        WaitingJob("7", 2, 1440, ("short", "long"), "ReqNodeNotAvail, UnavailableNodes:a|b"),
        WaitingJob("8_3", 1, None, ("gpu",), "None"),
    ]
    assert "--name=run" in (tmp_path / "asked").read_text()
    slurm("squeue", "exit 1")
    assert waiting_jobs("run") == []


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30", 30), ("10:30", 10.5), ("02:00:00", 120), ("1-00:00:00", 1440), ("2-12", 3600), ("1-01:30", 1530),
        ("UNLIMITED", None), ("", None), ("NOT_SET", None),
    ],
)  # fmt: skip
def test_times_are_read_as_slurm_writes_them(text: str, minutes: float | None) -> None:
    assert minutes_of(text) == minutes


def test_a_reason_is_slurms_word_with_what_it_means() -> None:
    assert meaning("AssocGrpGRES") == "AssocGrpGRES, a limit is reached"
    assert meaning("SomethingNew") == "SomethingNew"
