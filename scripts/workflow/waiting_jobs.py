"""Why a job of Slurm waits, and whether it will ever start.

The reason that Slurm gives is that of the partition it tried last; a job that may start in another one is not hopeless.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from scripts.train.slurm_commands import answer

# Slurm's reasons for a job that waits and will never start (slurm.schedmd.com/job_reason_codes.html).
HOPELESS_REASONS = frozenset({
    "AccountNotAllowed", "AssocMaxCpuPerJobLimit", "AssocMaxGRESPerJob", "AssocMaxMemPerJob", "AssocMaxNodePerJobLimit",
    "AssocMaxWallDurationPerJobLimit", "BadConstraints", "InvalidAccount", "InvalidQOS", "PartitionTimeLimit",
    "QOSMaxCpuPerJobLimit", "QOSMaxGRESPerJob", "QOSMaxMemoryPerJob", "QOSMaxNodePerJobLimit",
    "QOSMaxWallDurationPerJobLimit", "QOSNotAllowed",
})  # fmt: skip

# Those of the whole job, whichever partitions it names.
_OF_THE_JOB = frozenset({"InvalidAccount", "InvalidQOS"})

# The reason both of a job that asks for more nodes than the partition allows and of one whose nodes are down.
NODE_LIMIT_REASON = "PartitionNodeLimit"

# Slurm has put the job back after it could not be started on its node, or an administrator holds it: nobody may ever let it go.
HELD_REASONS = frozenset({"JobHeldAdmin", "launch failed requeued held"})

# What a reason means to the person who waits.
_MEANINGS = {
    "Priority": "others are before it",
    "Resources": "what it needs is in use",
    "Dependency": "it waits for another job",
    "JobHeldUser": "somebody holds it; `scontrol release` lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "launch failed requeued held": "its node could not start it",
    "BeginTime": "it was put back and starts again in a moment",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "Licenses": "licences that it needs are in use",
    "Reservation": "it waits for its reservation",
}
_LIMIT = re.compile(r"^(QOS|Assoc).*(Max|Grp)")
_FORMAT = "--format=%i|%D|%l|%P|%r"
_WAITING_STATES = "--states=PENDING,REQUEUE_HOLD,SPECIAL_EXIT"


@dataclass(frozen=True)
class WaitingJob:
    """A job that Slurm has not started."""

    job_id: str
    num_nodes: int
    limit_minutes: float | None  # None: no limit
    partitions: tuple[str, ...]
    reason: str


def minutes_of(text: str) -> float | None:
    """Slurm's D-HH:MM:SS, HH:MM:SS, MM:SS or MM; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None or third is not None:
        return (days or 0) * 1440 + first * 60 + (second or 0) + (third or 0) / 60  # type: ignore[operator]
    return first + (second or 0) / 60  # type: ignore[operator]


def waiting_jobs(run_uuid: str) -> list[WaitingJob]:
    """This run's jobs that have not started."""
    jobs = []
    for line in answer("squeue", "--noheader", f"--name={run_uuid}", _WAITING_STATES, _FORMAT).splitlines():
        if match := re.fullmatch(r"([^|]+)\|(\d+)\|([^|]*)\|([^|]*)\|(.*)", line):
            job_id, num_nodes, limit, partitions, reason = match.groups()
            jobs.append(
                WaitingJob(job_id, int(num_nodes), minutes_of(limit), tuple(partitions.split(",")), reason.strip("() "))
            )
    return jobs


def _limits_of(partition: str) -> Mapping[str, str]:
    shown = answer("scontrol", "--oneliner", "show", "partition", partition)
    return dict(re.findall(r"\b(MaxTime|MaxNodes)=(\S+)", shown))


def is_forbidden_in(job: WaitingJob, partition: str) -> bool:
    """Whether a partition's limits can never let a job start; False if they are not known."""
    limits = _limits_of(partition)
    max_minutes = minutes_of(limits.get("MaxTime", ""))
    max_nodes = limits.get("MaxNodes", "")
    is_too_long = max_minutes is not None and job.limit_minutes is not None and job.limit_minutes > max_minutes
    return is_too_long or (max_nodes.isdigit() and job.num_nodes > int(max_nodes))


def is_hopeless(job: WaitingJob) -> bool:
    """Whether a job will never start."""
    if job.reason in _OF_THE_JOB:
        return True
    if job.reason == NODE_LIMIT_REASON or (len(job.partitions) > 1 and job.reason in HOPELESS_REASONS):
        return all(is_forbidden_in(job, partition) for partition in job.partitions)
    return job.reason in HOPELESS_REASONS


def meaning(reason: str) -> str:
    """A reason in Slurm's word and, where it is known, in ours."""
    word = reason.partition(",")[0]
    text = _MEANINGS.get(reason) or _MEANINGS.get(word) or ("a limit is reached" if _LIMIT.match(reason) else "")
    return f"{reason}, {text}" if text else reason


class NewReasons:
    """Tells each reason of a waiting job once."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def lines(self, jobs: Iterable[WaitingJob], rule_of_job: Mapping[str, str]) -> Iterator[str]:
        for job in jobs:
            if job.reason in ("", "None") or (job.job_id, job.reason) in self._told:
                continue
            self._told.add((job.job_id, job.reason))
            yield f"{rule_of_job.get(job.job_id, 'a step')} (Slurm job {job.job_id}) waits: {meaning(job.reason)}"


def nodes_that_could_not_start(job_id: str) -> str:
    """The nodes of a held job's earlier starts, as Slurm writes them; where accounting does not say, those that are drained."""
    shown = answer(
        "sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", "--format=NodeList", "-j", job_id
    )
    if nodes := _named(shown.splitlines()):
        return nodes
    return _named(answer("sinfo", "--noheader", "--states=drain", "--format=%N").split())


def _named(texts: Collection[str]) -> str:
    return ",".join(dict.fromkeys(text for text in texts if text and text != "None assigned"))
