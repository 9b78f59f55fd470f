"""Asks one benchmark through EvalScope's native backend, and writes down each answer with why it ended.

Last of the evaluation's four layers (scripts/evaluate/job.py lists them), like run_vlmevalkit.py: a child of
question_loop.py. It imports while the model servers load, then waits for their addresses on stdin.

EvalScope's own evaluator is subclassed where its documentation says so (`_process_work_item`): the samples are those of the
benchmark's table (scripts/questions/native_samples.py), each goes to the replica with the fewest requests under way, its
answer is written to answers-SEED.jsonl, and a question whose answer is there already is only scored. EvalScope's cache,
which identifies a model by its name alone, is not used. EvalScope turns a refused request (HTTP 400) into an answer, and
content of `null` into an empty one; both are failures here.

By hand (the servers must be up; task.json as evaluate.py leaves it in its work directory):
  echo '["http://127.0.0.1:8000/v1"]' | .venvs/evaluate/bin/python scripts evaluate.run_native --task task.json
"""

import argparse
import importlib
import json
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.reading import read_object
from scripts.donors.library_errors import in_one_line
from scripts.evaluate.answer_log import Answer, line_of, read_answers
from scripts.evaluate.judgements import Judgement, write_judgements
from scripts.evaluate.load_balancer import LoadBalancer
from scripts.evaluate.settings import NativeSettings
from scripts.evaluate.task_file import HarnessTask, Round
from scripts.questions.native_samples import AskedSample, letters_of, own_adapter, samples_of
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import read_benchmark, rows_of

# Tries of one request in all: the client's own two after the first (openai, DEFAULT_MAX_RETRIES); EvalScope's would multiply.
NUM_CLIENT_TRIES = 1

# How EvalScope calls what the server calls "length"; any other end than these two is a failure.
FINISH_REASONS = {"stop": "stop", "max_tokens": "length"}

# EvalScope's names of the score of one question, where ours is another.
METRICS = {"acc": "accuracy", "relaxed_acc": "relaxed_accuracy"}

# Whose answers are read as yes or no.
YES_NO_ADAPTERS = ("pope", "hallusion_bench")


def adapter_of(dataset: str, rows: Sequence[Mapping[str, str]], tsv_path: Path) -> str:
    """EvalScope's name of the adapter that scores a table."""
    return dataset if all(row.get("sample") for row in rows) else own_adapter(rows, str(tsv_path))


def native_settings(task: HarnessTask) -> NativeSettings:
    assert isinstance(task.settings, NativeSettings)
    return task.settings


def task_config(adapter: str, task: HarnessTask, round_: Round, base_url: str) -> Any:
    """EvalScope's configuration of one seed's run at one address."""
    from evalscope import TaskConfig
    from evalscope.constants import JudgeStrategy

    settings = native_settings(task)
    return TaskConfig(
        model=task.served_name,
        api_url=base_url,
        api_key="EMPTY",
        eval_type="openai_api",
        datasets=[adapter],
        eval_batch_size=settings.batch_size,
        generation_config={
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": round_.seed,
            "retries": NUM_CLIENT_TRIES,
            "retry_interval": 0,
        },
        judge={"strategy": JudgeStrategy.RULE},
        # EvalScope would only count failures; each is in our file of answers and refuses the whole benchmark.
        ignore_errors=True,
        work_dir=round_.run_dir,
        no_timestamp=True,
        seed=None,  # EvalScope draws nothing, since the samples are ours; with a seed it would import torch
    )


class Recorder:
    """The answers of one seed, asked for now or known from before, and their judgements."""

    def __init__(self, adapter: str, round_: Round, asked: Sequence[AskedSample], indices: Sequence[str]) -> None:
        self.adapter = adapter
        self.indices = frozenset(indices)  # the others are another node's
        self.path = Path(round_.answers)
        self.key = round_.key
        self.asked = asked
        self.known = {answer.index: answer for answer in read_answers(self.path, self.key)}
        self.judgements: list[Judgement] = []
        self.unscored: list[str] = []  # questions with the reason
        self._lock = threading.Lock()

    def write(self, answer: Answer) -> None:
        with self._lock, open(self.path, "a", encoding="utf-8") as file:
            file.write(line_of(answer, self.key))

    def judge(self, task_state: Any, sample_score: Any, row: Mapping[str, str]) -> None:
        """Keeps a judgement; raises ValueError when EvalScope could not score the answer."""
        from evalscope.constants import ScoreStatus

        score = sample_score.score
        index = self.asked[task_state.sample_id].index
        if score.status != ScoreStatus.SUCCESS or score.main_value is None:
            raise ValueError(score.metadata or score.explanation)
        judgement = Judgement(
            index=index,
            prediction=task_state.output.completion,
            options={letter: row[letter] for letter in letters_of(row)},
            answer=row["answer"],
            score=float(score.main_value),
            extracted=self._extracted(score),
            metric=METRICS.get(score.main_score_name, score.main_score_name),
        )
        with self._lock:
            self.judgements.append(judgement)

    def _extracted(self, score: Any) -> str | None:
        """What EvalScope's parser found in the answer."""
        found = score.extracted_prediction or ""
        if self.adapter in YES_NO_ADAPTERS:
            from evalscope.utils.yes_no import extract_verdict

            return extract_verdict(found, allow_lowercase_exact=True)
        return found.strip() or None


def require_content(response: Mapping[str, Any]) -> None:
    """Raises ValueError for content of `null`, which EvalScope would take for an empty answer."""
    for choice in response["choices"] or []:
        if choice["message"]["content"] is None:
            raise ValueError(f"content is null: {json.dumps(response)[:300]}")


def answer_of(index: str, output: Any) -> Answer:
    """An answer of the server; raises ValueError when EvalScope made one of a refusal."""
    if output.error or output.empty or output.stop_reason not in FINISH_REASONS:
        reason = output.error or (f"{output.stop_reason}: {output.completion}" if not output.empty else "no choices")
        raise ValueError(f"the server refused it: {reason[:300]}")
    return Answer(index, output.completion, FINISH_REASONS[output.stop_reason], None)


def recording_evaluator(
    recorder: Recorder, rows: Sequence[Mapping[str, str]], models: Mapping[str, Any], load_balancer: LoadBalancer
) -> type:
    """EvalScope's evaluator, asking the samples of our table and writing each answer down."""
    from evalscope.api.dataset import MemoryDataset
    from evalscope.api.dataset.dataset import DatasetDict
    from evalscope.api.model import ModelOutput
    from evalscope.evaluator import DefaultEvaluator

    class RecordingEvaluator(DefaultEvaluator):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            by_subset = defaultdict(list)
            for asked in (each for each in recorder.asked if each.index in recorder.indices):
                by_subset[asked.subset].append(asked.sample)
            datasets = DatasetDict({subset: MemoryDataset(samples) for subset, samples in by_subset.items()})
            self.benchmark.test_dataset = datasets
            self.benchmark.load_dataset = lambda: datasets  # in place of a hub's

        def _process_work_item(self, item: Any, model_prediction_dir: str) -> Any:
            index = recorder.asked[item.sample.id].index
            if before := recorder.known.get(index):
                output = ModelOutput.from_content(
                    self.model_name, before.prediction, stop_reason=stop_reason_of(before.finish_reason)
                )
                task_state = self.benchmark._on_inference_end(self.model, item.sample, output, model_prediction_dir)
            else:
                task_state = self._ask(item.sample, index, model_prediction_dir)
            try:
                sample_score = self._review_task_state(task_state)
                recorder.judge(task_state, sample_score, rows[item.sample.id])
            except Exception as error:
                recorder.unscored.append(f"question {index}: {type(error).__name__}: {error}")
                raise
            return task_state, sample_score

        def _ask(self, sample: Any, index: str, model_prediction_dir: str) -> Any:
            try:
                with load_balancer.least_busy() as base_url:
                    task_state = self.benchmark.run_inference(models[base_url], sample, model_prediction_dir)
                answer = answer_of(index, task_state.output)
            except Exception as error:
                reason = in_one_line(error)  # pydantic's have several lines
                recorder.write(Answer(index, "", None, reason))
                raise
            recorder.write(answer)
            return task_state

    return RecordingEvaluator


def stop_reason_of(finish_reason: str | None) -> str:
    """EvalScope's name of a server's `finish_reason`."""
    return next(ours for ours, theirs in FINISH_REASONS.items() if theirs == finish_reason)


def ask(
    task: HarnessTask,
    round_: Round,
    rows: Sequence[Mapping[str, str]],
    asked: Sequence[AskedSample],
    base_urls: Sequence[str],
) -> list[Judgement]:
    """Runs EvalScope for one seed and returns the judgements; failures are in the file of answers.

    Raises UserError when an answer could not be scored.
    """
    from evalscope import run_task
    from evalscope.api.model import get_model_with_task_config
    from evalscope.api.registry import EVALUATOR_REGISTRY

    adapter = adapter_of(task.dataset, rows, Path(task.tsv))
    models = {}
    for base_url in base_urls:
        models[base_url] = get_model_with_task_config(task_config(adapter, task, round_, base_url))
        models[base_url].api.on_response = require_content
    recorder = Recorder(adapter, round_, asked, task.indices)
    EVALUATOR_REGISTRY[adapter] = recording_evaluator(recorder, rows, models, LoadBalancer(base_urls))
    run_task(task_config(adapter, task, round_, base_urls[0]))
    if recorder.unscored:
        raise UserError(
            f"{task.dataset}: EvalScope could not score {len(recorder.unscored)} answers, first {recorder.unscored[0]}; "
            "expected a score for each; see this log above"
        )
    return recorder.judgements


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", type=Path, required=True, help="JSON, as evaluate.py writes it")
    task = read_object(HarnessTask, parser.parse_args().task)

    for module in ("evalscope.run", "evalscope.models.openai_compatible", "evalscope.evaluator"):  # slow
        importlib.import_module(module)
    asked_tsv = Path(task.asked_tsv)
    table = read_benchmark(asked_tsv, needs_pictures=False)
    rows = rows_of(table)
    asked = list(samples_of(rows, pictures_of(table, asked_tsv), native_settings(task).prompt, is_blind=task.is_blind))
    line = sys.stdin.readline().strip()
    if not line:
        return
    Path(task.begun).touch()
    for round_ in task.rounds:
        write_judgements(Path(round_.judgements), ask(task, round_, rows, asked, json.loads(line)))


if __name__ == "__main__":
    run_program(main)
