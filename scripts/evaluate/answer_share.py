"""Asks one node's share of a benchmark's questions, for an evaluation on several nodes (`evaluate.serve.num_nodes`).

First of the evaluation's four layers (scripts/evaluate/job.py lists them), like evaluate.py.

Each node has its own model servers on its own 127.0.0.1 and its own EvalScope; on Slurm each share is a job of one node,
which starts when there is room for it. The answers stay in the work directory, where evaluate.py finds them by the
evaluation's key; the output only confirms that they are all there. Interrupted, the same command goes on, as evaluate.py does.

By hand: .venv/bin/python scripts evaluate.answer_share --config FILE --benchmark mmmu --model stage2 --share 0
"""

import argparse
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.files import write_json_atomically
from scripts.common.ownership import owned
from scripts.common.units import duration
from scripts.common.whole_numbers import whole_number
from scripts.evaluate.answer_log import require_no_failures
from scripts.evaluate.evaluation_log import make_logger
from scripts.evaluate.job import (
    EvaluationJob,
    Share,
    add_arguments,
    identity_of,
    job_from,
    prepared_task,
    read_questions,
)
from scripts.evaluate.joining import by_index
from scripts.evaluate.provenance import Times
from scripts.evaluate.question_loop import ask_all


@dataclass(frozen=True)
class AnsweredShare:
    """The output. Snakemake alone needs it; the rest is for people."""

    key: str
    num_questions: int
    host: str
    slurm_job_id: str | None
    num_asked_before: int
    startup_s: float
    wall_time_s: float
    questions_per_s: float


def answer_share(job: EvaluationJob, share: Share, output_path: Path, log_path: Path) -> None:
    """All answers of the share and the output, or a UserError without it."""
    log = make_logger(log_path)
    table = read_questions(job)
    key = identity_of(job).key()
    output_path.unlink(missing_ok=True)
    name = f"{job.model_name}, share {share.number + 1} of {share.num_nodes}"
    with prepared_task(job, table, key, share) as task:
        asked = ask_all(task, log_path, lambda line: log(f"{name}: {line}"))
        for seed, answers in asked.answers.items():
            where = str(task.answers_path(seed))
            require_no_failures(answers, len(task.questions), where)
            by_index(answers, task.questions, "answers", where)
    times = Times.of(asked.timing, task.num_answers)
    output = AnsweredShare(
        key=key,
        num_questions=len(task.questions),
        host=socket.gethostname(),
        slurm_job_id=os.environ.get("SLURM_JOB_ID"),
        **vars(times),
    )
    write_json_atomically(output_path, asdict(output))
    log(f"{name}: {task.num_answers} answers, in {duration(times.wall_time_s)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--share", type=whole_number(0), required=True, help="from 0")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    with owned(arguments.output):
        job = job_from(arguments)
        answer_share(job, Share(arguments.share, job.serve.num_nodes), arguments.output, arguments.log)


if __name__ == "__main__":
    run_program(main)
