"""What a cluster's failed jobs said last. Their output is in files of the cluster's nodes' choosing; Snakemake names only those.

Our programs end with one line `error: …`, perhaps with indented lines below it (common/errors.py); what has no such line
ended in another way, and then the last lines are shown.
"""

import re
from dataclasses import dataclass
from pathlib import Path

NUM_LAST_LINES = 8

# Lines of Snakemake and its Slurm plugin 2.8.0, in the log of the whole run.
_SUBMITTED = re.compile(r"has been submitted with SLURM jobid (\S+) \(log: (.+)\)\.$")
_FAILED = re.compile(r"^Error in (?:local)?rule (\w+):$")
_JOB_ID = re.compile(r"^ +jobid: (\d+)$")
_EXTERNAL_ID = re.compile(r"^ +external_jobid: (\S+)$")
_FINISHED = re.compile(r"^Finished jobid: (\d+) ")
# What Snakemake itself adds to a job's output when the job's program has failed.
_OF_SNAKEMAKE = re.compile(
    r"^(\[.*\]$|Error in |RuleException|CalledProcessError|Shutting down|Exiting because|srun: |WorkflowError)"
)


@dataclass(frozen=True)
class FailedJob:
    """One submission that ended without its result."""

    rule: str
    job_id: str
    log_path: Path


def failed_jobs(workflow_log: str) -> list[FailedJob]:
    """The last submission of each of the run's jobs that failed and was not finished by a later one."""
    log_paths: dict[str, Path] = {}
    unfinished: dict[str, FailedJob] = {}  # by Snakemake's number of the job
    rule = job = ""
    for line in workflow_log.splitlines():
        if match := _SUBMITTED.search(line):
            log_paths[match.group(1)] = Path(match.group(2))
        elif match := _FINISHED.match(line):
            unfinished.pop(match.group(1), None)
        elif match := _FAILED.match(line):
            rule = match.group(1)
        elif match := _JOB_ID.match(line):
            job = match.group(1)
        elif (match := _EXTERNAL_ID.match(line)) and rule:
            if match.group(1) in log_paths:
                unfinished[job] = FailedJob(rule, match.group(1), log_paths[match.group(1)])
            rule = ""
    return list(unfinished.values())


def last_words(job_output: str) -> list[str]:
    """The last error of our programs with what belongs to it, or the last lines that are not Snakemake's own."""
    lines = job_output.splitlines()
    for begin in range(len(lines) - 1, -1, -1):
        if lines[begin].startswith("error: "):
            end = begin + 1
            while end < len(lines) and lines[end].startswith("  "):
                end += 1
            return lines[begin:end]
    own = [line for line in lines if line.strip() and not line.startswith("    ") and not _OF_SNAKEMAKE.match(line)]
    return own[-NUM_LAST_LINES:]


def told(workflow_log: str) -> str:
    """For each failed job its last submission: what it said, and where all of its output is. Empty for none."""
    parts = []
    for job in failed_jobs(workflow_log):
        try:
            lines = last_words(job.log_path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            lines = [f"its output cannot be read ({error.strerror})"]
        parts.append("\n".join([f"{job.rule}, Slurm job {job.job_id}, said:", *(f"  {line}" for line in lines)]))
        parts.append(f"  all of it: {job.log_path}")
    return "\n".join(parts)
