"""Serves one model, asks it one benchmark through EvalScope, and writes one checked record per question.

First of the evaluation's four layers (scripts/evaluate/job.py lists them), like answer_share.py.

The model's servers (ms-swift, in their own environment) and EvalScope (its VLMEvalKit or native backend, in this one) start
together and are children that end with this program. The records are written only when each question was asked once,
answered by this model and judged by that very answer: a question that failed, is missing or was judged by an older answer
refuses all.

Questions that fail are asked again, once, by a server started anew. After an interruption the same command goes on with
the questions that were not answered: answers are kept in WORK_DIR/KEY/answers-SEED.jsonl (answer_log.py), where the key
covers checkpoint, questions, settings and versions; of EvalScope's own files nothing is taken over.

With `num_nodes` above 1 in --serve it asks nothing itself: the answers are those of evaluate.answer_share, one run a node.

By hand: .venv/bin/python scripts evaluate.evaluate --config config/demo.yaml --benchmark digits --model stage2
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import sha256_of_file, write_text_atomically
from scripts.common.ownership import owned
from scripts.common.units import duration
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
from scripts.evaluate.joining import make_records
from scripts.evaluate.provenance import Identity, Provenance, Times, Timing, write_provenance
from scripts.evaluate.question_loop import Task, ask_all
from scripts.evaluate.records import write_records


@dataclass(frozen=True)
class Outputs:
    """The files of one evaluation."""

    records_path: Path
    provenance_path: Path
    log_path: Path


def provenance_of(
    job: EvaluationJob, identity: Identity, num_questions: int, timing: Timing, records_path: Path
) -> Provenance:
    times = Times.of(timing, num_questions * job.num_seeds)
    return Provenance(
        model=job.model_name,
        model_dir=os.path.relpath(job.model_dir),
        **vars(identity),
        backend=job.serve.backend,
        seeds=job.seeds,
        num_questions=num_questions,
        records_sha256=sha256_of_file(records_path),
        **vars(times),
    )


def adopt_shares(job: EvaluationJob, task: Task) -> None:
    """Takes the nodes' answers over; raises UserError unless they are complete."""
    num_nodes = job.serve.num_nodes
    for seed in task.seeds:
        paths = [
            job.share_dir(Share(number, num_nodes)) / task.directory.name / task.answers_path(seed).name
            for number in range(num_nodes)
        ]
        found = [path.read_text(encoding="utf-8") for path in paths if path.exists()]
        write_text_atomically(task.answers_path(seed), "".join(found))
    if (num_found := task.keep_sound_answers()) < task.num_answers:
        raise UserError(
            f"{job.work_dir}: {num_found} of {task.num_answers} answers found in the shares of {num_nodes} nodes; "
            "expected all, to these very questions, of this checkpoint with these settings and versions; run the shares "
            "again (`snakemake --forcerun answer_share …`)"
        )


def evaluate(job: EvaluationJob, outputs: Outputs) -> None:
    """Writes both outputs, or neither and raises UserError."""
    log = make_logger(outputs.log_path)
    table = read_questions(job)
    identity = identity_of(job)
    for path in (outputs.records_path, outputs.provenance_path):
        path.unlink(missing_ok=True)  # an older result must not be taken for this one
    with prepared_task(job, table, identity.key()) as task:
        if job.serve.num_nodes > 1:
            adopt_shares(job, task)
        asked = ask_all(task, outputs.log_path, lambda line: log(f"{job.model_name}: {line}"))
        records = []
        for seed in task.seeds:
            where = str(task.answers_path(seed))
            records += make_records(task.questions, asked.answers[seed], asked.judgements[seed], seed, where)
    write_records(outputs.records_path, records)
    provenance = provenance_of(job, identity, len(task.questions), asked.timing, outputs.records_path)
    write_provenance(outputs.provenance_path, provenance)
    mean = sum(record.score for record in records) / len(records)
    log(f"{job.model_name}: score {mean:.3f} over {len(records)} answers, in {duration(provenance.wall_time_s)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    with owned(arguments.records, arguments.provenance):
        evaluate(job_from(arguments), Outputs(arguments.records, arguments.provenance, arguments.log))


if __name__ == "__main__":
    run_program(main)
