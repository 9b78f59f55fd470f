"""Asks one benchmark through EvalScope's VLMEvalKit backend, and writes down each answer with why it ended.

Last of the evaluation's four layers (scripts/evaluate/job.py lists them), like run_native.py: a child of question_loop.py.
It imports (about 20 s) while the model servers load, then waits for their addresses on stdin.

VLMEvalKit's tables hold neither why an answer ended nor whether a request failed. So its API model is subclassed here to
write answers-SEED.jsonl, one line a question; a proxy in between would have to handle HTTP for every request. A question
whose answer is in that file already is not asked again. For the control without pictures they are taken out of the request.
judgements-SEED.jsonl holds VLMEvalKit's judgements (vlmevalkit_verdicts.py).

By hand (the servers must be up; task.json as evaluate.py leaves it in its work directory):
  echo '["http://127.0.0.1:8000/v1"]' | LMUData=DIR .venvs/evaluate/bin/python scripts evaluate.run_vlmevalkit --task task.json
"""

import argparse
import importlib
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.files import md5_of_file
from scripts.common.reading import read_object
from scripts.evaluate.answer_log import Answer, line_of, read_answers
from scripts.evaluate.judgements import Judgement, write_judgements
from scripts.evaluate.load_balancer import LoadBalancer
from scripts.evaluate.settings import VlmevalkitSettings
from scripts.evaluate.task_file import HarnessTask, Round
from scripts.evaluate.vlmevalkit_verdicts import CHOICE_TYPES, OTHER_VERDICTS, choice_judgements
from scripts.questions.catalogue import CIRCULAR_MARKS
from scripts.questions.tables import read_benchmark, require_scorable

# Names that make VLMEvalKit ask each question in several turns of its options and score the group (image_mcq.py).

# Control characters do not survive its tables; a token of raw bytes can be one.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

# VLMEvalKit retries an empty answer and then calls it a failure; a blank is an answer in which it finds no option.
BLANK_ANSWER = " "

# A request that failed is sent this many times in all.
NUM_TRIES = 3


# What EvalScope and VLMEvalKit call the model, whatever name it is served under. They make file names of it, in which they
# replace braces, and by parts such as "step", "o1" or "gemini" they take it for somebody's service: some get the questions
# sent to another address, others no temperature.
MODEL_NAME = "Qwen3-VL"


class ServedName(str):
    """The name in a request, in which VLMEvalKit finds no name of a service."""

    def __contains__(self, part: object) -> bool:
        return False


def eval_config(dataset: str, base_url: str, settings: VlmevalkitSettings, seed: int) -> dict[str, Any]:
    """EvalScope's `eval_config`: the published one's keys, with the seed sent along with each request."""
    model = {
        "name": "CustomAPIModel",
        "api_base": f"{base_url}/chat/completions",
        "key": "EMPTY",
        "type": MODEL_NAME,
        "temperature": settings.temperature,
        "img_size": settings.img_size,
        "video_llm": settings.video_llm,
        "max_tokens": settings.max_tokens,
        "retry": NUM_TRIES,
        "seed": seed,
    }
    run = {"mode": settings.mode, "reuse": settings.reuse, "nproc": settings.nproc, "judge": settings.judge}
    return {"data": [dataset], "model": [model], **run}


def clean(text: str) -> str:
    """The answer as it can stand in a table."""
    return _CONTROL.sub("\ufffd", text.replace("\r", "\n")).strip() or BLANK_ANSWER


def without_pictures(message: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The text parts of a message of VLMEvalKit."""
    return [part for part in message if part["type"] != "image"]


class Request(threading.local):
    """A thread's present request, and how its last try ended."""

    base_url = ""  # before the first request, VLMEvalKit only logs it
    finish_reason: str | None = None
    error: str | None = None


def named_model(base: type, served_name: str) -> type:
    """VLMEvalKit's API model, made to ask under the name that the server has."""

    class NamedModel(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.model = ServedName(served_name)

    return NamedModel


def recording_model(
    base: type, answers_path: Path, key: str, load_balancer: LoadBalancer, indices: Collection[str], *, is_blind: bool
) -> type:
    """VLMEvalKit's API model, made to write each answer down with why it ended, to ask nothing twice, and to use all replicas.

    Questions that are not in `indices` are another node's: they get a blank, which is not written down.
    """
    lock = threading.Lock()
    thread = Request()
    answered_before = {answer.index: answer for answer in read_answers(answers_path, key)}

    class RecordingModel(base):  # type: ignore[misc]
        @property
        def api_base(self) -> str:
            """The address of this thread's request."""
            return f"{thread.base_url}/chat/completions"

        @api_base.setter
        def api_base(self, only_one: str) -> None:
            """VLMEvalKit sets one address for all requests; here each has its own."""

        def generate_inner(self, inputs: Any, **options: Any) -> tuple[int, str, Any]:
            """One try of one request; leaves finish_reason, or the error, with this thread."""
            thread.finish_reason, thread.error = None, "no answer"
            try:
                with load_balancer.least_busy() as thread.base_url:
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
            if str(index) not in indices:
                return BLANK_ANSWER
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
    """VLMEvalKit's loop over questions, changed to hand each to the model with its index."""

    def tracked(generate: Any, tasks: Sequence[Mapping[str, Any]], *, keys: Sequence[Any], **options: Any) -> list[Any]:
        indexed = [{"index": key, **task} for key, task in zip(keys, tasks, strict=True)]
        return track(generate.__self__.answer_question, indexed, keys=keys, **options)

    return tracked


def check_dataset(name: str, tsv_path: Path, *, is_original: bool) -> None:
    """Raises UserError when VLMEvalKit would fetch another file than `tsv_path`, ask in turns, or need a judge."""
    from vlmeval.dataset import DATASET_CLASSES, DATASET_TYPE

    if any(mark in name.lower() for mark in CIRCULAR_MARKS):
        raise UserError(
            f"{name}: VLMEvalKit scores benchmarks with {', '.join(CIRCULAR_MARKS)} in their name in groups of turned "
            "options, which this table does not hold; give your own another name, or choose evaluate.backend: native"
        )
    known = [each for each in DATASET_CLASSES if name in each.supported_datasets()]
    kind = DATASET_TYPE(name)
    if not (kind in CHOICE_TYPES or (known and name in OTHER_VERDICTS)):
        raise UserError(
            f"{name}: {kind} for VLMEvalKit; expected a multiple-choice benchmark ({', '.join(CHOICE_TYPES)}) or one of "
            f"{', '.join(OTHER_VERDICTS)}, since only those are scored without a judge; choose evaluate.backend: native"
        )
    if not known:
        require_scorable(read_benchmark(tsv_path), tsv_path)
        return
    md5_of = getattr(known[0], "DATASET_MD5", {})
    if name in md5_of and (found := md5_of_file(tsv_path)) != md5_of[name]:
        raise UserError(
            f"{tsv_path}: md5 {found} found; VLMEvalKit expects {md5_of[name]} under the name {name}; move the file away "
            "and fetch it with scripts/questions/fetch_benchmark.py, or give your own TSV its own name"
        )
    if not is_original:
        md5_of.pop(name, None)  # the copy that is asked is another file; VLMEvalKit would fetch the original over it


def ask(task: HarnessTask, round_: Round, load_balancer: LoadBalancer, base_url: str) -> list[Judgement]:
    """Runs EvalScope for one seed and returns the judgements; raises UserError with VLMEvalKit's reason if it fails."""
    import vlmeval.config
    import vlmeval.inference
    from evalscope import TaskConfig, run_task
    from vlmeval.smp import get_logger

    assert isinstance(task.settings, VlmevalkitSettings)
    dataset, seed = task.dataset, round_.seed
    original, track = vlmeval.config.supported_VLM["CustomAPIModel"], vlmeval.inference.track_progress_rich
    recording = recording_model(
        named_model(original.func, task.served_name),
        Path(round_.answers),
        round_.key,
        load_balancer,
        frozenset(task.indices),
        is_blind=task.is_blind,
    )
    errors: list[str] = []

    class ErrorList(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reason = traceback.format_exception_only(record.exc_info[1])[-1].strip() if record.exc_info else ""
            errors.append(reason or record.getMessage())

    handler = ErrorList(logging.ERROR)
    run_dir = Path(round_.run_dir)
    config = eval_config(dataset, base_url, task.settings, seed)
    vlmeval.config.supported_VLM["CustomAPIModel"] = partial(recording, **original.keywords)
    vlmeval.inference.track_progress_rich = with_index(track)
    get_logger("VLMEvalKit").addHandler(handler)
    try:
        run_task(
            TaskConfig(
                eval_backend="VLMEvalKit", eval_config=config, work_dir=str(run_dir), no_timestamp=True, seed=seed
            )
        )
    finally:
        get_logger("VLMEvalKit").removeHandler(handler)
        vlmeval.config.supported_VLM["CustomAPIModel"], vlmeval.inference.track_progress_rich = original, track
    if errors:
        raise UserError(f"{dataset}: VLMEvalKit did not finish: {errors[-1]}; see this log above")
    return OTHER_VERDICTS.get(dataset, choice_judgements)(run_dir, dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", type=Path, required=True, help="JSON, as evaluate.py writes it")
    task = read_object(HarnessTask, parser.parse_args().task)

    for module in ("evalscope.backend.vlm_eval_kit", "vlmeval.run"):  # slow
        importlib.import_module(module)
    check_dataset(task.dataset, Path(task.tsv), is_original=task.is_original)
    line = sys.stdin.readline().strip()
    if not line:
        return
    base_urls = json.loads(line)
    Path(task.begun).touch()
    for round_ in task.rounds:
        write_judgements(Path(round_.judgements), ask(task, round_, LoadBalancer(base_urls), base_urls[0]))


if __name__ == "__main__":
    run_program(main)
