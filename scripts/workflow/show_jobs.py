"""Prints the Slurm jobs of this directory that wait or run, and why they wait.

Nothing is printed where no job was ever submitted from here.

By hand: .venv/bin/python scripts workflow.show_jobs        # `make status` shows the trainings, too
"""

import argparse
from pathlib import Path

from scripts.common.errors import run_program
from scripts.workflow.one_run import jobs_of
from scripts.workflow.waiting_jobs import meaning


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    for job in jobs_of(Path.cwd()):
        reason = f": {meaning(job.reason)}" if job.is_waiting else ""
        print(f"Slurm job {job.job_id} ({job.rule}) is {job.state.lower()}{reason}")


if __name__ == "__main__":
    run_program(main)
