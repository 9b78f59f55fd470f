"""Asks one benchmark through EvalScope's VLMEvalKit backend, and writes down what VLMEvalKit forgets.

A child of evaluate.py: it imports (about 20 s) while the model server loads, then waits for the server's address on stdin.
VLMEvalKit keeps neither why an answer ended nor whether a request failed, so its API model is subclassed here to write
answers-SEED.jsonl, one line a question: a proxy in between would have to speak HTTP for every request, and the tables that
it leaves behind no longer know. A question whose answer is in that file already is not asked again. For the control without
pictures they are taken out of the request. judgements-SEED.jsonl is VLMEvalKit's table of verdicts with what its own parser
finds in each answer now.

By hand (the servers must be up; task.json as evaluate.py leaves it in its work directory):
  echo '["http://127.0.0.1:8000/v1"]' | LMUData=DIR .venvs/evaluate/bin/python scripts evaluate.run_vlmevalkit --task task.json
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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.files import md5_of_file
from scripts.evaluate.answer_log import line_of, read_answers
from scripts.evaluate.load_balancer import Addresses
from scripts.evaluate.records import Answer, Judgement, write_judgements

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


class Request(threading.local):
    """The request that a thread has under way, and how its last try ended."""

    base_url = ""  # none yet: VLMEvalKit only logs it then
    finish_reason: str | None = None
    error: str | None = None


def recording_model(
    base: type, answers_path: Path, key: str, addresses: Addresses, indices: Collection[str], *, is_blind: bool
) -> type:
    """VLMEvalKit's API model, which here writes each answer down with why it ended, asks nothing twice, and has replicas.

    Questions beside `indices` are another node's: they get a blank, which is not written down.
    """
    lock = threading.Lock()
    thread = Request()
    answered_before = {answer.index: answer for answer in read_answers(answers_path, key)}

    class RecordingModel(base):  # type: ignore[misc]
        @property
        def api_base(self) -> str:
            """Where this thread's request goes."""
            return f"{thread.base_url}/chat/completions"

        @api_base.setter
        def api_base(self, of_all: str) -> None:
            """VLMEvalKit knows one address; here each request has its own."""

        def generate_inner(self, inputs: Any, **options: Any) -> tuple[int, str, Any]:
            """One try of one request; leaves finish_reason, or the error, with this thread."""
            thread.finish_reason, thread.error = None, "no answer"
            try:
                with addresses.one() as thread.base_url:
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
    """VLMEvalKit's loop over questions, each handed to the model with its index, which it keeps to itself."""

    def tracked(generate: Any, tasks: Sequence[Mapping[str, Any]], *, keys: Sequence[Any], **options: Any) -> list[Any]:
        indexed = [{"index": key, **task} for key, task in zip(keys, tasks, strict=True)]
        return track(generate.__self__.answer_question, indexed, keys=keys, **options)

    return tracked


def check_dataset(name: str, tsv_path: Path, *, is_original: bool) -> None:
    """Raises UserError when VLMEvalKit would fetch another file than `tsv_path`, ask in turns, or need a judge."""
    from vlmeval.dataset import DATASET_CLASSES, DATASET_TYPE

    from scripts.questions.tables import read_benchmark, require_scorable

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


def rows_in(path: Path) -> list[dict[str, str]]:
    """A table that VLMEvalKit left, as text."""
    import pandas

    from scripts.questions.tables import rows_of

    return rows_of(pandas.read_csv(path, sep="\t", dtype=str, keep_default_na=False))


def choice_judgements(run_dir: Path, dataset: str) -> list[Judgement]:
    """VLMEvalKit's verdicts on choices with what its parser finds in each answer."""
    from vlmeval.utils.matching_util import can_infer

    judgements = []
    for row in rows_in(the_table(run_dir, f"{dataset}_exact_matching_result.tsv")):
        options = {letter: row[letter] for letter in string.ascii_uppercase if row.get(letter)}
        answer = row["answer"]
        if "MMMU" in dataset and answer not in tuple(string.ascii_uppercase):
            answer = "A"  # as mcq_vanilla_eval does: an open question has become one whose option A is right
        extracted = can_infer(row["prediction"], dict(options)) or None
        judgements.append(
            Judgement(row["index"], row["prediction"], options, answer, float(row["hit"]), extracted, log=row["log"])
        )
    return judgements


def yes_no_judgements(run_dir: Path, dataset: str) -> list[Judgement]:
    """Verdicts on questions to be answered by yes or no."""
    from vlmeval.dataset.utils.yorn import YOrN_Extraction

    judgements = []
    for row in rows_in(the_table(run_dir, f"{dataset}_auxmatch.tsv")):
        found = YOrN_Extraction(row["prediction"])
        extracted = None if found == "Unknown" else found
        judgements.append(
            Judgement(row["index"], row["prediction"], {}, row["answer"], float(found == row["answer"]), extracted)
        )
    return judgements


def open_judgements(run_dir: Path, dataset: str) -> list[Judgement]:
    """Scores of open answers, by VLMEvalKit's own sum over one question (relaxed accuracy for ChartQA, ANLS for DocVQA)."""
    import ast

    from vlmeval.dataset.utils.vqa_eval import hit_calculate

    judgements = []
    for row in rows_in(the_table(run_dir, f"{dataset}_results.tsv")):
        (score,) = hit_calculate([{"match": ast.literal_eval(row["eval_match"])}], dataset)
        judgements.append(replace(open_judgement(row, float(score)), metric=OPEN_METRICS[dataset]))
    return judgements


def reading_judgements(run_dir: Path, dataset: str) -> list[Judgement]:
    """OCRBench's verdicts: VLMEvalKit only sums them up, so each question is given to it alone."""
    import pandas
    from vlmeval.dataset.image_vqa import OCRBench

    judgements = []
    alone_path = run_dir / f"alone_{dataset}.pkl"  # of a TSV with one row, pandas would make 12 of the answer 0012
    for row in rows_in(the_table(run_dir, f"{dataset}.tsv")):
        pandas.DataFrame([row]).to_pickle(alone_path)
        judgements.append(open_judgement(row, float(OCRBench.evaluate(str(alone_path))["Final Score"])))
    return judgements


def open_judgement(row: Mapping[str, str], score: float) -> Judgement:
    """The whole answer counts; a blank one holds nothing that could be read."""
    return Judgement(row["index"], row["prediction"], {}, row["answer"], score, row["prediction"].strip() or None)


# What VLMEvalKit's own sum is the mean of (dataset/image_vqa.py: evaluate_heuristic).
OPEN_METRICS = {"ChartQA_TEST": "relaxed_accuracy", "DocVQA_VAL": "anls"}

# VLMEvalKit's types of multiple choice (DATASET_TYPE), and the other benchmarks that it scores by a fixed rule.
CHOICE_TYPES = ("MCQ", "MCQ_MMMU_Pro")

OTHER_VERDICTS: dict[str, Callable[[Path, str], list[Judgement]]] = {
    "POPE": yes_no_judgements,
    "HallusionBench": yes_no_judgements,
    "ChartQA_TEST": open_judgements,
    "DocVQA_VAL": open_judgements,
    "OCRBench": reading_judgements,
}


def the_table(run_dir: Path, ending: str) -> Path:
    """The one table of a run with this ending."""
    found = [path for path in run_dir.glob(f"*/*_{ending}") if path.is_file()]
    if len(found) != 1:
        raise UserError(
            f"{run_dir}: {len(found)} tables *_{ending} of VLMEvalKit found, 1 expected; see this log above"
        )
    return found[0]


def ask(task: Mapping[str, Any], round_: Mapping[str, Any], addresses: Addresses, base_url: str) -> list[Judgement]:
    """Runs EvalScope for one seed and returns the verdicts; raises UserError with VLMEvalKit's reason when there are none."""
    import vlmeval.config
    import vlmeval.inference
    from evalscope import TaskConfig, run_task
    from vlmeval.smp import get_logger

    dataset, seed = task["dataset"], round_["seed"]
    original, track = vlmeval.config.supported_VLM["CustomAPIModel"], vlmeval.inference.track_progress_rich
    recording = recording_model(
        original.func,
        Path(round_["answers"]),
        round_["key"],
        addresses,
        frozenset(task["indices"]),
        is_blind=task["is_blind"],
    )
    errors: list[str] = []

    class ErrorList(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reason = traceback.format_exception_only(record.exc_info[1])[-1].strip() if record.exc_info else ""
            errors.append(reason or record.getMessage())

    handler = ErrorList(logging.ERROR)
    run_dir = Path(round_["run_dir"])
    config = eval_config(dataset, base_url, task["served_name"], task["settings"], seed)
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
    task = json.loads(parser.parse_args().task.read_text(encoding="utf-8"))

    for module in ("evalscope.backend.vlm_eval_kit", "vlmeval.run"):  # what takes its time
        importlib.import_module(module)
    check_dataset(task["dataset"], Path(task["tsv"]), is_original=task["is_original"])
    line = sys.stdin.readline().strip()
    if not line:
        return
    base_urls = json.loads(line)
    Path(task["begun"]).touch()
    for round_ in task["rounds"]:
        write_judgements(Path(round_["judgements"]), ask(task, round_, Addresses(base_urls), base_urls[0]))


if __name__ == "__main__":
    run_program(main)
