"""Summarises failed jobs at the end of a run. Snakemake names only the files with their output.

Our programs end with one line `error: …`, perhaps with indented lines below it (scripts/common/errors.py). Where there is
no such line, the last lines of the output are shown.
"""

import re
from dataclasses import dataclass
from pathlib import Path

NUM_LAST_LINES = 8

# Lines of Snakemake and its Slurm plugin 2.8.0, in the log of the whole run.
_SUBMITTED = re.compile(r"has been submitted with SLURM jobid (\S+) \(log: (.+)\)\.$")
_FAILED = re.compile(r"^Error in (?:local)?rule (\w+):$")
_MESSAGE = re.compile(r"^ +message: (.+)$")
_END_OF_MESSAGE = re.compile(r"^    [a-z][\w() -]*: ?|^\S.*rule \w+:$|^\[|^Trying to restart ")
_JOB_ID = re.compile(r"^ +jobid: (\d+)$")
_LOG = re.compile(r"^ +log: (.+) \(check log file\(s\) for error details\)$")
_EXTERNAL_ID = re.compile(r"^ +external_jobid: (\S+)$")
_REFUSED = re.compile(r"sbatch failed|submission failed")
_FINISHED = re.compile(r"^Finished jobid: (\d+) ")

_MISSING = re.compile(r"^MissingOutputException in rule (\w+) ")
_MISSING_JOB = re.compile(r"^Job (\d+) +completed successfully, but some output files are missing")

# What Slurm adds to a job's output when memory ran out: the kernel killed a process of it, or Slurm the whole job.
_OUT_OF_MEMORY = re.compile(
    r"^slurmstepd\S*: error: .*(oom[-_ ]kill|[Ee]xceeded .*memory limit)|^srun: error: .*: Out Of Memory$", re.MULTILINE
)

# By which variable of slurm/config.yaml a rule's job asks for memory.
_MEMORY_VARIABLES = {
    "stage1": "SLURM_MEM_MB_TRAIN", "stage2": "SLURM_MEM_MB_TRAIN",
    "answer_share": "SLURM_MEM_MB_EVALUATE", "evaluate": "SLURM_MEM_MB_EVALUATE",
    "calibration": "SLURM_MEM_MB_CALIBRATION", "fidelity": "SLURM_MEM_MB_FIDELITY",
    "check_checkpoint": "SLURM_MEM_MB_CHECK_CHECKPOINT",
}  # fmt: skip

# What Snakemake adds to a job's output when the job's program has failed.
_OF_SNAKEMAKE = re.compile(
    r"^(\[.*\]$|Error in |RuleException|CalledProcessError|Shutting down|Exiting because|srun: |WorkflowError)"
)


@dataclass
class FailedJob:
    """One start of a job that ended without its result."""

    rule: str
    job_id: str = ""  # Snakemake's
    slurm_job_id: str = ""  # empty for a local job
    log_path: Path | None = None  # None where Slurm refused it
    is_missing_output: bool = False  # it ended well, but its files cannot be seen
    short_of_memory: tuple[str, ...] = ()  # those of its starts, by Slurm's numbers, of which Slurm says so
    message: str = ""  # Snakemake's, with Slurm's whole answer if it never started: its first lines are often a banner


def output_of(path: Path) -> str:
    """What a job has printed; empty where that cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def reports_out_of_memory(text: str) -> bool:
    """Whether Slurm says so. The job's own state is mostly FAILED; that of its step, which its output names, is not."""
    return "OUT_OF_MEMORY" in text or bool(_OUT_OF_MEMORY.search(text))


def ran_out_of_memory(job: FailedJob) -> bool:
    return reports_out_of_memory(f"{job.message}\n{output_of(job.log_path) if job.log_path else ''}")


def failed_jobs(workflow_log: str) -> list[FailedJob]:
    """The last failed start of each job that no later start finished."""
    slurm_logs: dict[str, Path] = {}
    blocks: list[FailedJob] = []
    is_in_message = False
    for line in workflow_log.splitlines():
        is_in_message = is_in_message and not _END_OF_MESSAGE.match(line)
        if is_in_message and line.strip():
            blocks[-1].message += f"\n{line.strip()}"
        elif match := _SUBMITTED.search(line):
            slurm_logs[match.group(1)] = Path(match.group(2))
        elif match := _FINISHED.match(line):
            blocks = [block for block in blocks if block.job_id != match.group(1)]
        elif match := _FAILED.match(line) or _MISSING.match(line):
            blocks.append(FailedJob(match.group(1), is_missing_output=line.startswith("Missing")))
        elif blocks and not blocks[-1].job_id and (match := _JOB_ID.match(line) or _MISSING_JOB.match(line)):
            blocks[-1].job_id = match.group(1)
        elif blocks and not blocks[-1].message and (match := _MESSAGE.match(line)):
            blocks[-1].message, is_in_message = match.group(1), True
        elif blocks and (match := _LOG.match(line)) and not _REFUSED.search(blocks[-1].message):
            blocks[-1].log_path = Path(match.group(1))
        elif blocks and (match := _EXTERNAL_ID.match(line)):
            blocks[-1].slurm_job_id = match.group(1)
            blocks[-1].log_path = slurm_logs.get(match.group(1))
    for job in (last := {block.job_id: block for block in blocks}).values():
        starts = [block for block in blocks if block.job_id == job.job_id and block.slurm_job_id]
        job.short_of_memory = tuple(block.slurm_job_id for block in starts if ran_out_of_memory(block))
    return list(last.values())


def memory_remedy(job: FailedJob) -> list[str]:
    """What to do where memory ran out; the last start may have been refused because of that, and not say so itself."""
    if not job.short_of_memory:
        return []
    variable = _MEMORY_VARIABLES.get(job.rule)
    how = f"raise {variable}" if variable else f"give {job.rule} more mem_mb in set-resources of slurm/config.yaml"
    return [
        f"memory ran out, Slurm says of job {', '.join(job.short_of_memory)}; {how}, then give the same command again"
    ]


def last_error(lines: list[str]) -> list[str]:
    """The last error of our programs, with the indented lines that belong to it; empty for none."""
    for begin in range(len(lines) - 1, -1, -1):
        if lines[begin].startswith("error: "):
            end = begin + 1
            while end < len(lines) and lines[end].startswith("  "):
                end += 1
            return lines[begin:end]
    return []


def reason_in(job_output: str) -> list[str]:
    """The last error of our programs, else the last lines that are not Snakemake's."""
    lines = job_output.splitlines()
    own = [line for line in lines if line.strip() and not line.startswith("    ") and not _OF_SNAKEMAKE.match(line)]
    return last_error(lines) or own[-NUM_LAST_LINES:]


def reason_for(job: FailedJob) -> list[str]:
    """Why a job failed: from its output, or Slurm's reason if it never started.

    Of a local job only an error of our programs counts: its other output was on the terminal already, and its log may be
    that of another program.
    """
    if job.is_missing_output:
        return [
            "its job ended well, but this machine does not see its files within the latency-wait of slurm/config.yaml; give the "
            "same command again with a longer one (--latency-wait 300), or ask why the file system shows files so late"
        ]
    if job.log_path is None:
        return job.message.splitlines() if _REFUSED.search(job.message) else []
    try:
        output = job.log_path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return [job.message, f"its output cannot be read ({error.strerror})"] if job.slurm_job_id else []
    return reason_in(output) if job.slurm_job_id else last_error(output.splitlines())


def failure_summary(workflow_log: str) -> str:
    """Each failed job with its reason and the file that holds its whole output; empty if no job failed."""
    parts = []
    for job in failed_jobs(workflow_log):
        if reason := memory_remedy(job) + reason_for(job):
            name = f"{job.rule} (Slurm job {job.slurm_job_id})" if job.slurm_job_id else job.rule
            parts += [f"{name} failed:", *(f"  {line}" for line in reason)]
            parts += [f"  whole output: {job.log_path}"] if job.log_path and job.log_path.exists() else []
    return "\n".join(parts)
