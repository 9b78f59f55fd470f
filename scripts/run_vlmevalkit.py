"""Asks one benchmark through EvalScope's VLMEvalKit backend, and writes down what VLMEvalKit forgets.

A child of evaluate.py: it imports (about 20 s) while the model server loads, then waits for the server's address on stdin.
VLMEvalKit keeps neither why an answer ended nor whether a request failed, so its API model is subclassed here to write
answers.jsonl, one line a question: a proxy in between would have to speak HTTP for every request, and the tables that it
leaves behind no longer know. A question whose answer is in that file already is not asked again. For the control without
pictures they are taken out of the request. judgements.jsonl is VLMEvalKit's table of verdicts with what its own parser
finds in each answer now.

By hand (the server must be up):
  echo http://127.0.0.1:8000/v1 | LMUData=DIR .venvs/evaluate/bin/python scripts/run_vlmevalkit.py --task task.json
"""

import argparse
import importlib
import json
import logging
import re
import string
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.answer_log import line_of, read_answers
from common.errors import UserError, run_program
from common.files import md5_of_file
from common.question_records import Answer

# Names that make VLMEvalKit ask each question in several turns of its options and score the group (image_mcq.py).
CIRCULAR_MARKS = ("mmbench", "ccbench", "circular", "mmcr")
# Control characters do not survive its tables; a token of raw bytes can be one.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# VLMEvalKit retries an empty answer and then calls it a failure; a blank is an answer in which it finds no option.
BLANK_ANSWER = " "
# A request that failed is sent this many times in all.
NUM_TRIES = 3


def eval_config(
    dataset: str, base_url: str, served_name: str, settings: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """EvalScope's `eval_config`: the published one's keys, with the seed sent along with each request."""
    model = {
        "name": "CustomAPIModel",
        "api_base": f"{base_url}/chat/completions",
        "key": "EMPTY",
        "type": served_name,
        **{key: settings[key] for key in ("temperature", "img_size", "video_llm", "max_tokens")},
        "retry": NUM_TRIES,
        "seed": seed,
    }
    run = {key: settings[key] for key in ("mode", "reuse", "nproc", "judge")}
    return {"data": [dataset], "model": [model], **run}


def clean(text: str) -> str:
    """The answer as it can stand in a table."""
    return _CONTROL.sub("\ufffd", text.replace("\r", "\n")).strip() or BLANK_ANSWER


def without_pictures(message: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """VLMEvalKit's message, its text alone."""
    return [part for part in message if part["type"] != "image"]


def recording_model(base: type, answers_path: Path, key: str, *, is_blind: bool) -> type:
    """VLMEvalKit's API model, which here also writes each answer down with why it ended, and asks nothing twice."""
    lock = threading.Lock()
    thread = threading.local()
    answered_before = {answer.index: answer for answer in read_answers(answers_path, key)}

    class RecordingModel(base):  # type: ignore[misc]
        def generate_inner(self, inputs: Any, **options: Any) -> tuple[int, str, Any]:
            """One try of one request; leaves finish_reason, or the error, with this thread."""
            thread.finish_reason, thread.error = None, "no answer"
            try:
                status, answer, response = super().generate_inner(inputs, **options)
            except Exception as error:
                thread.error = f"{type(error).__name__}: {error}"
                raise
            try:
                choice = response.json()["choices"][0]
                answer = clean(choice["message"]["content"])
                thread.finish_reason, thread.error = choice["finish_reason"], None
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                thread.error = f"HTTP {response.status_code}: {response.text[:300]}"
            return status, answer, response

        def answer_question(self, index: Any, message: Any, dataset: str) -> str:
            """All tries of one question, then its line."""
            if before := answered_before.get(str(index)):
                return before.prediction
            thread.finish_reason, thread.error = None, "never sent"
            if is_blind:
                message = without_pictures(message)
            prediction = str(self.generate(message=message, dataset=dataset))
            answer = Answer(str(index), prediction, thread.finish_reason, thread.error)
            with lock, open(answers_path, "a", encoding="utf-8") as file:
                file.write(line_of(answer, key))
            return prediction

    return RecordingModel


def with_index(track: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """VLMEvalKit's loop over questions, each handed to the model with its index, which it keeps to itself."""

    def tracked(generate: Any, tasks: Sequence[Mapping[str, Any]], *, keys: Sequence[Any], **options: Any) -> list[Any]:
        indexed = [{"index": key, **task} for key, task in zip(keys, tasks, strict=True)]
        return track(generate.__self__.answer_question, indexed, keys=keys, **options)

    return tracked


def check_dataset(name: str, tsv_path: Path, is_control: bool) -> None:
    """Raises UserError when VLMEvalKit would fetch another file than `tsv_path`, ask in turns, or need a judge."""
    from vlmeval.dataset import DATASET_CLASSES, DATASET_TYPE

    from common.benchmark_tables import read_benchmark, require_scorable

    if any(mark in name.lower() for mark in CIRCULAR_MARKS):
        raise UserError(
            f"{name}: VLMEvalKit scores benchmarks with {', '.join(CIRCULAR_MARKS)} in their name in groups of turned "
            "options, which this table does not hold; give your own TSV another name, or choose another benchmark"
        )
    if DATASET_TYPE(name) != "MCQ":
        raise UserError(
            f"{name}: {DATASET_TYPE(name)} for VLMEvalKit; expected a multiple-choice benchmark (MCQ), since only those "
            "are scored without a judge; choose another one"
        )
    known = [each for each in DATASET_CLASSES if name in each.supported_datasets()]
    if not known:
        require_scorable(read_benchmark(tsv_path), tsv_path)
        return
    md5_of = getattr(known[0], "DATASET_MD5", {})
    if name in md5_of and (found := md5_of_file(tsv_path)) != md5_of[name]:
        raise UserError(
            f"{tsv_path}: md5 {found} found; VLMEvalKit expects {md5_of[name]} under the name {name}; move the file away "
            "and fetch it with scripts/fetch_benchmark.py, or give your own TSV its own name"
        )
    if is_control:
        md5_of.pop(name, None)  # the copy that is asked has other pictures; VLMEvalKit would fetch the original over it


def judgements(result_path: Path, dataset: str) -> list[dict[str, Any]]:
    """VLMEvalKit's verdicts with what its parser finds in each answer."""
    import pandas
    from vlmeval.utils.matching_util import can_infer

    rows = []
    table = pandas.read_csv(result_path, sep="\t", dtype=str, keep_default_na=False)
    for row in table.to_dict("records"):
        options = {letter: row[letter] for letter in string.ascii_uppercase if row.get(letter)}
        answer = row["answer"]
        if "MMMU" in dataset and answer not in tuple(string.ascii_uppercase):
            answer = "A"  # as mcq_vanilla_eval does: an open question has become one whose option A is right
        rows.append({
            "index": row["index"],
            "prediction": row["prediction"],
            "options": options,
            "answer": answer,
            "hit": int(float(row["hit"])),
            "log": row["log"],
            "extracted": can_infer(row["prediction"], dict(options)) or None,
        })  # fmt: skip
    return rows


def ask(task: Mapping[str, Any], base_url: str) -> Path:
    """Runs EvalScope and returns the table of verdicts; raises UserError with VLMEvalKit's reason when there is none."""
    import vlmeval.config
    import vlmeval.inference
    from evalscope import TaskConfig, run_task
    from vlmeval.smp import get_logger

    original = vlmeval.config.supported_VLM["CustomAPIModel"]
    recording = recording_model(original.func, Path(task["answers"]), task["key"], is_blind=task["is_blind"])
    vlmeval.config.supported_VLM["CustomAPIModel"] = partial(recording, **original.keywords)
    vlmeval.inference.track_progress_rich = with_index(vlmeval.inference.track_progress_rich)

    errors: list[str] = []

    class ErrorList(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reason = traceback.format_exception_only(record.exc_info[1])[-1].strip() if record.exc_info else ""
            errors.append(reason or record.getMessage())

    Path(task["begun"]).touch()
    get_logger("VLMEvalKit").addHandler(ErrorList(logging.ERROR))
    run_dir = Path(task["run_dir"])
    config = eval_config(task["dataset"], base_url, task["served_name"], task["settings"], task["seed"])
    run_task(
        TaskConfig(
            eval_backend="VLMEvalKit", eval_config=config, work_dir=str(run_dir), no_timestamp=True, seed=task["seed"]
        )
    )
    results = list(run_dir.glob(f"*/*_{task['dataset']}_exact_matching_result.tsv"))
    if errors or len(results) != 1:
        reason = errors[-1] if errors else f"{len(results)} tables of verdicts found, 1 expected"
        raise UserError(f"{task['dataset']}: VLMEvalKit did not finish: {reason}; see this log above")
    return results[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", type=Path, required=True, help="JSON, as evaluate.py writes it")
    task = json.loads(parser.parse_args().task.read_text(encoding="utf-8"))

    for module in ("evalscope.backend.vlm_eval_kit", "vlmeval.run"):  # what takes its time
        importlib.import_module(module)
    check_dataset(task["dataset"], Path(task["tsv"]), task["is_control"])
    base_url = sys.stdin.readline().strip()
    if not base_url:
        return
    rows = judgements(ask(task, base_url), task["dataset"])
    with open(task["judgements"], "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    run_program(main)
