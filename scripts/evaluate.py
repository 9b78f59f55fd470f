"""Serves one model, asks it one benchmark through EvalScope, and writes one checked record per question.

The model servers (ms-swift, in their own environment) and EvalScope (VLMEvalKit or native backend, in this one) start together
and are children that end with this program. The records are written only when each question was asked once, answered by this
model and judged by that very answer: a question that failed, is missing or was judged by an older answer refuses all.

Questions that fail are asked again, once, by a server started anew. After an interruption the same command goes on with
what was not answered: answers are kept in WORK_DIR/KEY/answers-SEED.jsonl (scripts/common/answer_log.py), where the key covers
checkpoint, questions, settings and versions; of EvalScope's own files nothing is taken over.

By hand:
  .venvs/evaluate/bin/python scripts/evaluate.py --model-name stage2 --model-dir results/demo/stage2/checkpoint \
    --backend vlmevalkit --benchmark digits --benchmark-tsv resources/data/digits/test.tsv --control none \
    --seed 0 --num-seeds 1 \
    --serve '{"backend": "transformers", "num_replicas": 1, "startup_timeout_s": 600, "environment": {"MAX_PIXELS": 3136},
              "flags": {"torch_dtype": "float32", "attn_impl": "sdpa", "max_new_tokens": 16}}' \
    --settings '{"mode": "all", "temperature": 0, "max_tokens": 16, "img_size": -1, "video_llm": false,
                 "reuse": false, "nproc": 16, "judge": "exact_matching"}' \
    --serve-python .venvs/train/bin/python --work-dir work/by-hand \
    --records work/by-hand/stage2.jsonl --provenance work/by-hand/stage2.json --log work/by-hand/stage2.log
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas
from shuffle_pictures import with_shuffled_pictures

from common.asking import HARNESSES, Serving, Task, Timing, ask_all, is_answers_name, log_paths
from common.benchmark_tables import Question, pictures_of, questions_of, read_benchmark, write_benchmark
from common.checkpoint_files import model_sha256
from common.child_processes import end_on_signals
from common.errors import UserError, run_program
from common.files import md5_of_file, write_json_atomically, write_text_atomically
from common.installed_packages import versions_in
from common.model_names import CONTROLS, NO_CONTROL
from common.process_group import try_lock
from common.question_records import make_records

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Evaluation:
    """What is asked of whom, as the command line gave it; paths are absolute."""

    model_name: str
    model_dir: Path
    backend: str
    benchmark: str
    benchmark_tsv: Path
    control: str
    serve: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    num_seeds: int
    serve_python: Path
    work_dir: Path

    @property
    def seeds(self) -> list[int]:
        """Each question is asked once for each."""
        return list(range(self.seed, self.seed + self.num_seeds))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model-name", required=True, help="the row of the table")
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--backend", choices=tuple(HARNESSES), required=True, help="EvalScope's")
    parser.add_argument("--benchmark", required=True, help="the backend's name, or one of your own")
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--control", choices=(NO_CONTROL, *CONTROLS), required=True)
    parser.add_argument("--serve", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--settings", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--seed", type=int, required=True, help="the first of as many as there are")
    parser.add_argument("--num-seeds", type=int, required=True)
    parser.add_argument("--serve-python", type=Path, required=True, help="interpreter of the server's environment")
    parser.add_argument("--work-dir", type=Path, required=True, help="for logs and files under way")
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    return parser.parse_args()


def narrator(log_path: Path) -> Callable[[str], None]:
    """Says a line on stderr and in the log."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    log_path.write_text("", encoding="utf-8")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        with open(log_path, "a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    return say


def key_of(identity: Mapping[str, Any]) -> str:
    """A short name for everything that decides the answers; another checkpoint or setting has another one."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def held_directory(work_dir: Path, key: str) -> Iterator[Path]:
    """`work_dir/key`, held alone, with nothing in it but answers: EvalScope takes any older verdict or picture it finds."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / f"{key}.lock", "w", encoding="utf-8") as lock:
        if not try_lock(lock, fcntl.LOCK_EX):
            raise UserError(f"{work_dir / key}: the same evaluation is running already; wait until it has ended")
        directory = work_dir / key
        directory.mkdir(exist_ok=True)
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not is_answers_name(path.name):
                path.unlink()
        yield directory


def prepare_task(
    evaluation: Evaluation, table: pandas.DataFrame, directory: Path, key: str
) -> tuple[Task, list[Question]]:
    """Puts the benchmark where EvalScope reads it; for a control, as it is asked."""
    lmu_data = directory / "lmu_data"
    lmu_data.mkdir()
    asked_tsv = lmu_data / f"{evaluation.benchmark}.tsv"
    if evaluation.control == "shuffled":
        table = with_shuffled_pictures(table, evaluation.benchmark_tsv, evaluation.seed)
        write_benchmark(table, asked_tsv)
    else:
        shutil.copyfile(evaluation.benchmark_tsv, asked_tsv)  # no link: VLMEvalKit may write to that path
    pictures = pictures_of(table, evaluation.benchmark_tsv)
    smoke_picture = next((shown[0] for shown in pictures if shown), None)
    if smoke_picture is None:
        raise UserError(
            f"{evaluation.benchmark_tsv}: no question has a picture; expected one at least, about which a server is asked "
            "first; choose another benchmark"
        )
    questions = questions_of(table, pictures)
    if evaluation.control == "blind":
        questions = [replace(question, image_sha256=None) for question in questions]
    task = Task(
        directory=directory,
        key=key,
        backend=evaluation.backend,
        dataset=evaluation.benchmark,
        tsv=evaluation.benchmark_tsv,
        control=evaluation.control,
        settings=evaluation.settings,
        seeds=evaluation.seeds,
        indices=frozenset(question.index for question in questions),
        smoke_picture=smoke_picture,
    )
    return task, questions


def versions(serve_python: Path, backend: str) -> dict[str, str]:
    """Versions of what served (read in its environment, without importing it) and of what asked."""
    names = ["ms-swift", "transformers", "torch", *(["vllm"] if backend == "vllm" else [])]
    asked_by = {name: importlib.metadata.version(name) for name in ("evalscope", "ms-vlmeval")}
    return versions_in(serve_python, names) | asked_by


def identity_of(evaluation: Evaluation) -> dict[str, Any]:
    """Everything that decides the answers but their seed; read before anything is asked."""
    return {
        "checkpoint_sha256": model_sha256(evaluation.model_dir),
        "harness": evaluation.backend,
        "benchmark": evaluation.benchmark,
        "benchmark_md5": md5_of_file(evaluation.benchmark_tsv),
        "control": evaluation.control,
        # Answers for seed 1 about pictures that seed 0 has shuffled are none about those that seed 1 has.
        "shuffled_by_seed": evaluation.seed if evaluation.control == "shuffled" else None,
        "serve": dict(evaluation.serve),
        "settings": dict(evaluation.settings),
        "versions": versions(evaluation.serve_python, evaluation.serve["backend"]),
    }


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
        "num_asked_before": num_questions * evaluation.num_seeds - timing.num_asked,
        "startup_s": round(timing.startup_s, 1),
        "wall_time_s": round(timing.startup_s + timing.asking_s, 1),
        "questions_per_s": round(timing.num_asked / timing.asking_s, 3),
    }


def append_logs(directory: Path, log_path: Path) -> None:
    """Puts the logs of all children behind our own lines, whatever happened."""
    with open(log_path, "ab") as log:
        for path in log_paths(directory):
            log.write(f"\n---- {path}\n".encode())
            with open(path, "rb") as part:
                shutil.copyfileobj(part, log)


def evaluate(evaluation: Evaluation, records_path: Path, provenance_path: Path, log_path: Path) -> None:
    """Everything: the two outputs, or a UserError and neither."""
    say = narrator(log_path)
    # VLMEvalKit leaves out a question without a picture; EvalScope's native backend asks it.
    table = read_benchmark(evaluation.benchmark_tsv, needs_pictures=evaluation.backend == "vlmevalkit")
    if not (evaluation.model_dir / "config.json").exists():
        raise UserError(
            f"{evaluation.model_dir}/config.json: not found; expected a checkpoint in the hub's format there; check "
            "--model-dir, or make the checkpoint"
        )
    identity = identity_of(evaluation)
    key = key_of(identity)
    for output_path in (records_path, provenance_path):
        output_path.unlink(missing_ok=True)  # an older result may not pass for this one
    with held_directory(evaluation.work_dir, key) as directory:
        task, questions = prepare_task(evaluation, table, directory, key)
        serving = Serving(evaluation.serve_python, evaluation.model_dir, evaluation.serve)
        try:
            asked = ask_all(task, serving, lambda line: say(f"{evaluation.model_name}: {line}"))
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
    say(f"{evaluation.model_name}: score {mean:.3f} over {len(records)} answers, in {about['wall_time_s']:.0f} s")


def main() -> None:
    arguments = parse_arguments()
    end_on_signals()
    given = {key: value for key, value in vars(arguments).items() if key in Evaluation.__dataclass_fields__}
    # absolute() and not resolve(): an environment's interpreter is a link, and is known by where the link lies
    given = {key: value.absolute() if isinstance(value, Path) else value for key, value in given.items()}
    evaluate(Evaluation(**given), arguments.records, arguments.provenance, arguments.log)


if __name__ == "__main__":
    run_program(main)
