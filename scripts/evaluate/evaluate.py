"""Serves one model, asks it one benchmark through EvalScope, and writes one checked record per question.

The model servers (ms-swift, in their own environment) and EvalScope (VLMEvalKit or native backend, in this one) start together
and are children that end with this program. The records are written only when each question was asked once, answered by this
model and judged by that very answer: a question that failed, is missing or was judged by an older answer refuses all.

Questions that fail are asked again, once, by a server started anew. After an interruption the same command goes on with
what was not answered: answers are kept in WORK_DIR/KEY/answers-SEED.jsonl (scripts/evaluate/answer_log.py), where the key covers
checkpoint, questions, settings and versions; of EvalScope's own files nothing is taken over.

With `num_nodes` above 1 in --serve it asks nothing itself: the answers are those of evaluate.answer_share, one run a node.

By hand:
  .venvs/evaluate/bin/python scripts evaluate.evaluate --model-name stage2 --model-dir results/demo/stage2/checkpoint \
    --backend vlmevalkit --benchmark digits --benchmark-tsv resources/data/digits/test.tsv --control none \
    --seed 0 --num-seeds 1 \
    --serve '{"backend": "transformers", "num_replicas": 1, "num_nodes": 1, "startup_timeout_s": 600,
              "environment": {"MAX_PIXELS": 3136},
              "flags": {"torch_dtype": "float32", "attn_impl": "sdpa", "max_new_tokens": 16}}' \
    --settings '{"mode": "all", "temperature": 0, "max_tokens": 16, "img_size": -1, "video_llm": false,
                 "reuse": false, "nproc": 16, "judge": "exact_matching"}' \
    --serve-python .venvs/train/bin/python --work-dir work/by-hand \
    --records work/by-hand/stage2.jsonl --provenance work/by-hand/stage2.json --log work/by-hand/stage2.log
"""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.common.child_processes import end_on_signals
from scripts.common.errors import UserError, run_program
from scripts.common.files import write_json_atomically, write_text_atomically
from scripts.common.logger import make_logger
from scripts.common.root import ROOT
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
from scripts.evaluate.question_loop import Task, Timing, ask_all
from scripts.evaluate.records import make_records


def provenance(
    evaluation: Evaluation, identity: Mapping[str, Any], num_questions: int, timing: Timing
) -> dict[str, Any]:
    """What it takes to say where a row of the table comes from; the times are this run's, for the questions that it asked."""
    return {
        "model": evaluation.model_name,
        "model_dir": os.path.relpath(evaluation.model_dir, ROOT),
        **identity,
        "backend": evaluation.serve["backend"],
        "seeds": evaluation.seeds,
        "num_questions": num_questions,
        **times_of(timing, num_questions * evaluation.num_seeds),
    }


def adopt_shares(evaluation: Evaluation, task: Task) -> None:
    """Takes the nodes' answers over; raises UserError naming a node whose share is not there as a whole."""
    num_nodes = evaluation.serve["num_nodes"]
    for seed in task.seeds:
        paths = [
            evaluation.share_dir(Share(number, num_nodes)) / task.directory.name / task.answers_path(seed).name
            for number in range(num_nodes)
        ]
        found = [path.read_text(encoding="utf-8") for path in paths if path.exists()]
        write_text_atomically(task.answers_path(seed), "".join(found))
    if (num_found := task.keep_sound_answers()) < task.num_answers:
        raise UserError(
            f"{evaluation.work_dir}: {num_found} of {task.num_answers} answers found in the shares of {num_nodes} nodes; "
            "expected all, to these very questions, of this checkpoint with these settings and versions; run the shares "
            "again (`snakemake --forcerun answer_share …`)"
        )


def evaluate(evaluation: Evaluation, records_path: Path, provenance_path: Path, log_path: Path) -> None:
    """Everything: the two outputs, or a UserError and neither."""
    log = make_logger(log_path)
    table = read_table(evaluation)
    identity = identity_of(evaluation)
    key = key_of(identity)
    for output_path in (records_path, provenance_path):
        output_path.unlink(missing_ok=True)  # an older result may not pass for this one
    with held_directory(evaluation.work_dir, key) as directory:
        task, questions = prepare_task(evaluation, table, directory, key)
        if evaluation.serve["num_nodes"] > 1:
            adopt_shares(evaluation, task)
        try:
            asked = ask_all(task, evaluation.serving, lambda line: log(f"{evaluation.model_name}: {line}"))
        finally:
            append_logs(directory, log_path)
        records = [
            record
            for seed in task.seeds
            for record in make_records(
                questions, asked.answers[seed], asked.judgements[seed], seed, str(task.answers_path(seed))
            )
        ]
    about = provenance(evaluation, identity, len(questions), asked.timing)
    write_text_atomically(records_path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    write_json_atomically(provenance_path, about)
    mean = sum(record["score"] for record in records) / len(records)
    log(f"{evaluation.model_name}: score {mean:.3f} over {len(records)} answers, in {about['wall_time_s']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    end_on_signals()
    evaluate(evaluation_of(arguments), arguments.records, arguments.provenance, arguments.log)


if __name__ == "__main__":
    run_program(main)
