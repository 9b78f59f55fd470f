"""From the death of a training's Slurm job to the start of the next one: what waits for Snakemake's next look, what is ours.

A Slurm of two nodes on this machine (tests/helpers/slurm_cluster.py) trains the demo's stage 1 in a fresh clone of the last
commit, whose job is cancelled three times. Noticed is when Snakemake's log shows the failure: up to one polling interval after
the death. Ours is from there to the start of the trainer in the next job: submission,
Slurm's scheduling, Snakemake's start in the job, and the launcher's checks.

By hand, as root, after `make environments`:
    .venv/bin/python benchmarks/continuation.py            # writes benchmarks/results/continuation.md
"""

import datetime
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.cluster_run import ClusterRun, wait_for_end, wait_for_step  # noqa: E402
from helpers.slurm_cluster import install_packages, missing_conditions, slurm_cluster  # noqa: E402
from scripts.common.errors import UserError, run_program  # noqa: E402
from scripts.common.files import write_text_atomically  # noqa: E402

CANCELLED_AT_STEPS = (25, 45, 65)
FLAGS = {"max_steps": 80, "save_steps": 20}
SITE = {
    "SLURM_POLL_S": "10", "SLURM_RUNTIME_TRAIN": "30",
    "SLURM_MEM_MB_TRAIN": "3000", "SLURM_CPUS_TRAIN": "2", "SLURM_CPUS_FIDELITY": "2", "SLURM_MEM_MB_FIDELITY": "3000",
}  # fmt: skip
DEMO_DONORS = {role: {"kind": "demo"} for role in ("vl", "llm")}


@dataclass(frozen=True)
class Continuation:
    """One death, in seconds since the epoch. Slurm and Snakemake write whole seconds."""

    died_s: float
    noticed_s: float
    trainer_started_s: float


def job_end_s(run: ClusterRun, job_id: str) -> float:
    match = re.search(r"EndTime=(\S+)", run.cluster.run("scontrol", "show", "job", job_id))
    assert match is not None
    return datetime.datetime.fromisoformat(match.group(1)).timestamp()


def noticed_times_s(workflow_log: str) -> list[float]:
    """When Snakemake logged each failure."""
    stamps = re.findall(r"^\[(.+)\]\nError in rule stage1:$", workflow_log, re.MULTILINE)
    return [datetime.datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y").timestamp() for stamp in stamps]


def measure(run: ClusterRun) -> list[Continuation]:
    """Trains stage 1 and cancels its job in its midst, again and again."""
    run.run("results/demo/graft/fidelity.json", "results/demo/data/stage1.check.json")
    with run.started(run.target("stage1")) as process:
        for number, step in enumerate(CANCELLED_AT_STEPS):
            wait_for_step(run, "stage1", step, process)
            run.cluster.run("scancel", run.starts("stage1")[number]["slurm_job_id"])
        wait_for_end(run, process)
    starts = run.starts("stage1")
    died = [job_end_s(run, start["slurm_job_id"]) for start in starts[:-1]]
    noticed = noticed_times_s(run.said())
    return [Continuation(*times) for times in zip(died, noticed, (s["start_time_s"] for s in starts[1:]), strict=True)]


def page(continuations: list[Continuation], slurm_version: str) -> str:
    versions = ", ".join(
        f"{name}=={importlib.metadata.version(name)}" for name in ("snakemake", "snakemake-executor-plugin-slurm")
    )
    rows = [f"| {c.noticed_s - c.died_s:.0f} | {c.trainer_started_s - c.noticed_s:.1f} |" for c in continuations]
    return "\n".join([
        "# From the death of a job to its continuation",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()};",
        f"{versions}; {slurm_version}, two nodes on this machine. Whole seconds in the first column.",
        "",
        f"| death to Snakemake's next look (every {SITE['SLURM_POLL_S']} s), s | from there to the trainer's next start, s |",
        "|---|---|",
        *rows,
        "",
    ])  # fmt: skip


def main() -> None:
    if reason := missing_conditions():
        raise UserError(f"{reason}; expected a machine where a Slurm can be started")
    install_packages()
    with tempfile.TemporaryDirectory() as directory:
        checkout = Path(directory) / "vlgraft"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        for lock_path in (checkout / "envs").glob(
            "*.lock"
        ):  # one that looks newer than its environment would rebuild it
            shutil.copystat(ROOT / "envs" / lock_path.name, lock_path)
        for environments in (".venv", ".venvs"):
            (checkout / environments).symlink_to(ROOT / environments, target_is_directory=True)
        with slurm_cluster(Path(directory) / "cluster") as cluster:
            os.environ |= SITE | cluster.environment
            run = ClusterRun(checkout, cluster)
            run.write_overlay(
                stage1={"flags": FLAGS}, donors=DEMO_DONORS, demo={"digits": {}}
            )  # as in the demo, whose donors learn from all of them
            text = page(measure(run), cluster.run("sinfo", "--version").strip())
    write_text_atomically(ROOT / "benchmarks/results/continuation.md", text)
    print(text)


if __name__ == "__main__":
    run_program(main)
