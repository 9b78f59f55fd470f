"""Asks one node's share of a benchmark's questions, for an evaluation that several nodes share (`evaluate.serve.num_nodes`).

Each node has its own model servers on its own 127.0.0.1 and its own EvalScope; on Slurm each share is a job of one node,
which starts when there is room for it. The answers stay in the work directory, where evaluate.py finds them by the
evaluation's key; the output only says that they are all there. Interrupted, the same command goes on, as evaluate.py does.

By hand (the same options as evaluate.py, and which share of how many):
  .venvs/evaluate/bin/python scripts evaluate.answer_share --share 0 --model-name stage2 … --output share0.json --log …
"""

import argparse
import os
import socket
from pathlib import Path

from scripts.common.child_processes import end_on_signals
from scripts.common.errors import run_program
from scripts.common.files import write_json_atomically
from scripts.common.logger import make_logger
from scripts.evaluate.job import (
    Evaluation,
    Share,
    add_arguments,
    append_logs,
    evaluation_of,
    held_directory,
    identity_of,
    key_of,
    prepare_task,
    read_table,
    times_of,
)
from scripts.evaluate.question_loop import ask_all
from scripts.evaluate.records import by_index, require_no_failures


def answer_share(evaluation: Evaluation, share: Share, output_path: Path, log_path: Path) -> None:
    """All answers of the share and the output, or a UserError without it."""
    log = make_logger(log_path)
    table = read_table(evaluation)
    identity = identity_of(evaluation)
    key = key_of(identity)
    output_path.unlink(missing_ok=True)
    with held_directory(evaluation.share_dir(share), key) as directory:
        task, questions = prepare_task(evaluation, table, directory, key, share)
        name = f"{evaluation.model_name}, share {share.number + 1} of {share.num_nodes}"
        try:
            asked = ask_all(task, evaluation.serving, lambda line: log(f"{name}: {line}"))
        finally:
            append_logs(directory, log_path)
        for seed, answers in asked.answers.items():
            where = str(task.answers_path(seed))
            require_no_failures(answers, len(questions), where)
            by_index(answers, questions, "answers", where)
    times = times_of(asked.timing, task.num_answers)
    where_asked = {"host": socket.gethostname(), "slurm_job_id": os.environ.get("SLURM_JOB_ID")}
    write_json_atomically(output_path, {"key": key, "num_questions": len(questions), **where_asked, **times})
    log(f"{name}: {task.num_answers} answers, in {times['wall_time_s']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--share", type=int, required=True, help="from 0")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    end_on_signals()
    evaluation = evaluation_of(arguments)
    answer_share(evaluation, Share(arguments.share, evaluation.serve["num_nodes"]), arguments.output, arguments.log)


if __name__ == "__main__":
    run_program(main)
