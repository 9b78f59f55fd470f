"""Fetches each benchmark of native_snapshots.py and scores known answers to it, by the programs' own functions.

All in one process, since EvalScope's import takes as long as everything else. Runs in the environment evaluate; by hand:
  PYTHONPATH=.:tests .venvs/evaluate/bin/python tests/helpers/score_native_snapshots.py --snapshots-dir work/snapshots \
    --work-dir work/scored --output work/scored.json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets

from helpers.evaluation_inputs import native_settings
from scripts.common.errors import UserError
from scripts.evaluate import run_native
from scripts.evaluate.answer_log import Answer, line_of
from scripts.evaluate.task_file import HarnessTask, Round
from scripts.questions.catalogue import read_catalogue
from scripts.questions.fetch_native_benchmark import loaded, write_table
from scripts.questions.native_samples import samples_of
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import read_benchmark, rows_of

NOBODY = ["http://127.0.0.1:9/v1"]  # every answer is known, nothing is asked


def score(name: str, adapter: str, snapshots_dir: Path, work_dir: Path) -> dict[str, Any]:
    """The table's rows, without pictures, and the judgements of the right answers (seed 0) and the wrong ones (seed 1)."""
    (work_dir / name).mkdir(parents=True)
    # One a process in the program; here one a benchmark, or snapshots with the same file names are taken for one another.
    datasets.config.HF_DATASETS_CACHE = work_dir / name / "datasets"
    tsv_path = work_dir / name / f"{adapter}.tsv"
    write_table(loaded(adapter, "modelscope", snapshots_dir / name, work_dir / name), adapter, tsv_path)
    table = read_benchmark(tsv_path, needs_pictures=False)
    rows = rows_of(table)
    pictures = pictures_of(table, tsv_path)
    answers = json.loads((snapshots_dir / f"{name}.json").read_text())
    settings = native_settings()
    indices = [row["index"] for row in rows]
    task = HarnessTask(adapter, str(tsv_path), str(tsv_path), True, False, "Qwen3-VL", settings, indices, "", [])
    scored: dict[str, Any] = {}
    for seed, kind in enumerate(("right", "wrong")):
        answers_path = work_dir / name / f"answers-{seed}.jsonl"
        lines = [
            line_of(Answer(row["index"], text, "stop", None), str(seed))
            for row, text in zip(rows, answers[kind], strict=True)
        ]
        answers_path.write_text("".join(lines))
        round_ = Round(seed, str(seed), str(answers_path), "", str(work_dir / name / kind))
        asked = list(samples_of(rows, pictures, settings.prompt, is_blind=False))
        scored[kind] = [asdict(judgement) for judgement in run_native.ask(task, round_, rows, asked, NOBODY)]
    asked[0].sample.target = "no answer that the adapter could read"
    try:
        scored["unreadable"] = len(run_native.ask(task, round_, rows, asked, NOBODY))
    except UserError as error:
        scored["unreadable"] = str(error)
    shown = [{column: value for column, value in row.items() if column not in ("image", "sample")} for row in rows]
    return {"rows": shown, "nums_pictures": [len(each) for each in pictures], **scored}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--snapshots-dir", required=True, type=Path)
    parser.add_argument("--work-dir", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    scored = {
        name: score(name, backends["native"], arguments.snapshots_dir, arguments.work_dir)
        for name, backends in read_catalogue().items()
    }
    arguments.output.write_text(json.dumps(scored))


if __name__ == "__main__":
    main()
