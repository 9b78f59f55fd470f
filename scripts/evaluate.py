"""Serves one model, asks it one benchmark through EvalScope, and writes one checked record per question.

The model server (ms-swift, in its own environment) and EvalScope (VLMEvalKit backend, in this one) start together and are
children that end with this program. The records are written only when each question was asked once, answered by this
server and judged by that very answer: a question that failed, is missing or was judged by an older answer refuses all.
Nothing of an earlier run is reused, so the same command is right after any interruption.

By hand:
  .venvs/evaluate/bin/python scripts/evaluate.py --model-name stage2 --model-dir results/demo/stage2/checkpoint \
    --benchmark DigitsTest --benchmark-tsv resources/data/digits/test.tsv --control none --seed 0 \
    --serve '{"backend": "transformers", "environment": {"MAX_PIXELS": 3136}, "startup_timeout_s": 600,
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
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import run_vlmevalkit
from shuffle_pictures import with_shuffled_pictures, write_benchmark

from common.benchmark_tables import pictures_of, questions_of, read_benchmark
from common.checkpoint_files import model_sha256
from common.child_processes import end_on_signals, process_group
from common.errors import UserError, run_program
from common.files import md5_of_file, write_json_atomically, write_text_atomically
from common.installed_packages import versions_in
from common.model_server import DEFAULT_SERVED_NAME, ModelServer, last_error, model_server
from common.process_group import try_lock
from common.question_records import NUM_NAMED, Answer, Judgement, is_failed, make_records, require_no_failures

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.2
PROGRESS_S = 10.0
# Variables that change what VLMEvalKit asks, where it sends it, or in which files it keeps it.
_VLMEVALKIT_VARIABLES = (
    "LMUData", "MMEVAL_ROOT", "PRED_FORMAT", "EVAL_FORMAT", "FWD_API", "SPLIT_THINK", "SKIP_ERR", "EVAL_PROXY",
    "VERBOSE", "PRINT_VANILLA", "FORCE_LOCAL", "BOYUE", "OPENAI_API_BASE", "OPENAI_API_KEY", "LOCAL_LLM", "RANK",
    "WORLD_SIZE", "LOCAL_WORLD_SIZE", "VLMEVAL_MAX_IMAGE_SIZE", "VLMEVAL_MIN_IMAGE_EDGE",
)  # fmt: skip
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Evaluation:
    """What is asked of whom, as the command line gave it; paths are absolute."""

    model_name: str
    model_dir: Path
    benchmark: str
    benchmark_tsv: Path
    control: str
    serve: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    serve_python: Path
    work_dir: Path


@dataclass(frozen=True)
class Timing:
    """Seconds until the first question, and of asking."""

    startup_s: float
    asking_s: float


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model-name", required=True, help="the row of the table")
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--benchmark", required=True, help="VLMEvalKit's name, or one of your own")
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--control", choices=("none", "shuffled"), required=True)
    parser.add_argument("--serve", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--settings", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--seed", type=int, required=True)
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
def fresh_directory(work_dir: Path, key: str) -> Iterator[Path]:
    """`work_dir/key`, emptied and held alone: VLMEvalKit takes any older answer, verdict or picture that it finds."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / f"{key}.lock", "w", encoding="utf-8") as lock:
        if not try_lock(lock, fcntl.LOCK_EX):
            raise UserError(f"{work_dir / key}: the same evaluation is running already; wait until it has ended")
        directory = work_dir / key
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir()
        yield directory


def harness_environment(inherited: Mapping[str, str], lmu_data: Path) -> dict[str, str]:
    """Variables of EvalScope: its data lies where we put it, nothing is fetched, requests stay on this machine."""
    kept = {k: v for k, v in inherited.items() if k not in (*_VLMEVALKIT_VARIABLES, *_PROXY_VARIABLES)}
    # A TSV, unlike a workbook, does not take an answer that starts with "=" for a formula.
    own = {"LMUData": str(lmu_data), "PRED_FORMAT": "tsv", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return {**kept, **own}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file that may still be growing; none when it does not exist yet."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # the last one is empty, or not yet whole
    return [json.loads(line) for line in lines]


def wait_until_ready(server: ModelServer, harness: subprocess.Popen[bytes], harness_log: Path) -> None:
    """Returns when the server answers; raises UserError when either of the two has ended."""
    while not server.is_ready():
        require_running(harness, harness_log)
        time.sleep(POLL_S)


def require_running(harness: subprocess.Popen[bytes], harness_log: Path) -> None:
    """Raises UserError with EvalScope's reason when it has failed."""
    if status := harness.poll():
        reason = last_error(harness_log)
        if reason.startswith("error: "):  # said by run_vlmevalkit.py for the user
            raise UserError(reason.removeprefix("error: "))
        raise UserError(f"{harness_log}: EvalScope ended (exit status {status}): {reason}; see this file")


def watch_answers(
    server: ModelServer,
    harness: subprocess.Popen[bytes],
    directory: Path,
    num_questions: int,
    say: Callable[[str], None],
) -> float:
    """Returns, when EvalScope is through, when it began; raises UserError once the server dies or some questions failed."""
    started = said = time.monotonic()
    answers_path = directory / "answers.jsonl"
    while harness.poll() is None:
        time.sleep(POLL_S)
        server.require_alive()
        if not answers_path.exists():  # EvalScope is still being imported
            started = said = time.monotonic()
        elif (now := time.monotonic()) - said >= PROGRESS_S:
            said = now
            answers = [Answer(**row) for row in read_lines(answers_path)]
            if sum(map(is_failed, answers)) >= NUM_NAMED:
                require_no_failures(answers, num_questions, str(answers_path))
            if answers:
                rate = len(answers) / (now - started)
                left_s = (num_questions - len(answers)) / rate
                say(f"answered {len(answers)} of {num_questions}, {rate:.1f} a second, about {left_s:.0f} s left")
    require_running(harness, directory / "evalscope.log")
    return started


def ask_benchmark(
    evaluation: Evaluation, table: pandas.DataFrame, directory: Path, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], Timing]:
    """Serves, asks and checks; the records, or a UserError."""
    lmu_data = directory / "lmu_data"
    lmu_data.mkdir()
    asked_tsv = lmu_data / f"{evaluation.benchmark}.tsv"
    if evaluation.control == "shuffled":
        table = with_shuffled_pictures(table, evaluation.benchmark_tsv, evaluation.seed)
        write_benchmark(table, asked_tsv)
    else:
        shutil.copyfile(evaluation.benchmark_tsv, asked_tsv)  # no link: VLMEvalKit may write to that path
    pictures = pictures_of(table, evaluation.benchmark_tsv)
    questions = questions_of(table, pictures)
    task = {
        "dataset": evaluation.benchmark,
        "tsv": str(evaluation.benchmark_tsv),
        "is_control": evaluation.control != "none",
        "served_name": evaluation.serve["flags"].get("served_model_name", DEFAULT_SERVED_NAME),
        "settings": evaluation.settings,
        "seed": evaluation.seed,
        "run_dir": str(directory),
        "answers": str(directory / "answers.jsonl"),
        "judgements": str(directory / "judgements.jsonl"),
    }
    write_json_atomically(directory / "task.json", task)
    harness_command = [sys.executable, run_vlmevalkit.__file__, "--task", str(directory / "task.json")]
    harness_log = directory / "evalscope.log"
    started = time.monotonic()
    with (
        process_group(harness_command, harness_environment(os.environ, lmu_data), directory, harness_log) as harness,
        model_server(
            evaluation.serve_python, ROOT, evaluation.model_dir, evaluation.serve, os.environ, directory
        ) as server,
    ):
        say(f"{evaluation.model_name}: the model server is starting, its log is {server.log_path}")
        wait_until_ready(server, harness, harness_log)
        server.require_sound_answer(pictures[0][0])
        ready_s = time.monotonic() - started
        say(f"{evaluation.model_name}: ready after {ready_s:.0f} s; asking {len(questions)} questions")
        assert harness.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended; what follows says why
            harness.stdin.write(f"{server.base_url}\n".encode())
            harness.stdin.flush()
        asking_started = watch_answers(server, harness, directory, len(questions), say)
        timing = Timing(asking_started - started, time.monotonic() - asking_started)
    answers = [Answer(**row) for row in read_lines(Path(task["answers"]))]
    judgements = [Judgement(**row) for row in read_lines(Path(task["judgements"]))]
    records = make_records(questions, answers, judgements, task["answers"])
    shutil.rmtree(lmu_data)  # a copy of the benchmark and its pictures, decoded
    return records, timing


def versions(serve_python: Path, backend: str) -> dict[str, str]:
    """Versions of what served (read in its environment, without importing it) and of what asked."""
    names = ["ms-swift", "transformers", "torch", *(["vllm"] if backend == "vllm" else [])]
    asked_by = {name: importlib.metadata.version(name) for name in ("evalscope", "ms-vlmeval")}
    return versions_in(serve_python, names) | asked_by


def provenance(
    evaluation: Evaluation, checkpoint: str, benchmark_md5: str, num_questions: int, timing: Timing
) -> dict[str, Any]:
    """What it takes to say where a row of the table comes from."""
    return {
        "model": evaluation.model_name,
        "model_dir": os.path.relpath(evaluation.model_dir, ROOT),
        "checkpoint_sha256": checkpoint,
        "benchmark": evaluation.benchmark,
        "benchmark_md5": benchmark_md5,
        "control": evaluation.control,
        "backend": evaluation.serve["backend"],
        "serve": dict(evaluation.serve),
        "settings": dict(evaluation.settings),
        "seed": evaluation.seed,
        "versions": versions(evaluation.serve_python, evaluation.serve["backend"]),
        "num_questions": num_questions,
        "startup_s": round(timing.startup_s, 1),
        "wall_time_s": round(timing.startup_s + timing.asking_s, 1),
        "questions_per_s": round(num_questions / timing.asking_s, 3),
    }


def append_logs(directory: Path, log_path: Path) -> None:
    """Puts the logs of both children behind our own lines, whatever happened."""
    with open(log_path, "ab") as log:
        for name in ("server.log", "evalscope.log"):
            if (directory / name).exists():
                log.write(f"\n---- {directory / name}\n".encode())
                with open(directory / name, "rb") as part:
                    shutil.copyfileobj(part, log)


def evaluate(evaluation: Evaluation, records_path: Path, provenance_path: Path, log_path: Path) -> None:
    """Everything: the two outputs, or a UserError and neither."""
    say = narrator(log_path)
    table = read_benchmark(evaluation.benchmark_tsv)
    if not (evaluation.model_dir / "config.json").exists():
        raise UserError(
            f"{evaluation.model_dir}/config.json: not found; expected a checkpoint in the hub's format there; check "
            "--model-dir, or make the checkpoint"
        )
    benchmark_md5 = md5_of_file(evaluation.benchmark_tsv)
    checkpoint = model_sha256(evaluation.model_dir)
    identity = {key: getattr(evaluation, key) for key in ("benchmark", "control", "serve", "settings", "seed")}
    key = key_of({**identity, "checkpoint": checkpoint, "benchmark_md5": benchmark_md5})
    for output_path in (records_path, provenance_path):
        output_path.unlink(missing_ok=True)  # an older result may not pass for this one
    with fresh_directory(evaluation.work_dir, key) as directory:
        try:
            records, timing = ask_benchmark(evaluation, table, directory, say)
        finally:
            append_logs(directory, log_path)
    about = provenance(evaluation, checkpoint, benchmark_md5, len(records), timing)
    write_text_atomically(records_path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    write_json_atomically(provenance_path, about)
    share = sum(record["correct"] for record in records) / len(records)
    say(f"{evaluation.model_name}: {share:.3f} of {len(records)} questions right, in {about['wall_time_s']:.0f} s")


def main() -> None:
    arguments = parse_arguments()
    end_on_signals()
    given = {key: value for key, value in vars(arguments).items() if key in Evaluation.__dataclass_fields__}
    # absolute() and not resolve(): an environment's interpreter is a link, and is known by where the link lies
    given = {key: value.absolute() if isinstance(value, Path) else value for key, value in given.items()}
    evaluate(Evaluation(**given), arguments.records, arguments.provenance, arguments.log)


if __name__ == "__main__":
    run_program(main)
