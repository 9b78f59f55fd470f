"""Scores known answers to small tables under the names of VLMEvalKit's benchmarks, by the program's own functions.

The tables are made up; the real ones are known by their md5, which is why VLMEvalKit's record of it is taken out here. Runs in
the environment evaluate; by hand:
  LMUData=work/lmu PRED_FORMAT=tsv PYTHONPATH=.:tests .venvs/evaluate/bin/python tests/helpers/score_vlmevalkit_tables.py \
    --work-dir work/scored --output work/scored.json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlmeval.smp import LMUDataRoot

from helpers.evaluation_inputs import picture, vlmevalkit_settings, write_rows
from scripts.evaluate import run_vlmevalkit
from scripts.evaluate.answer_log import Answer, line_of
from scripts.evaluate.load_balancer import LoadBalancer
from scripts.evaluate.task_file import HarnessTask, Round

NOBODY = "http://127.0.0.1:9/v1"  # every answer is known, nothing is asked


def row(index: int | str, question: str, answer: str, **more: str) -> dict[str, str]:
    return {
        "index": str(index),
        "image": picture(f"{question} {index}"),
        "question": question,
        "answer": answer,
        **more,
    }


CHOICES = {"A": "10", "B": "20", "C": "30", "D": "40"}
# Name → the rows, and a right and a wrong answer to each.
TABLES: dict[str, tuple[list[dict[str, str]], list[str], list[str]]] = {
    "MMMU_DEV_VAL": (
        [row(1, "<image 1> Which?", "B", **CHOICES, split="dev"),
         row(2, "How <image 1> many?", "5", A="5", B="Other Answers", split="validation")],
        ["B. 20", "A"], ["C", "B"],
    ),
    "MMMU_Pro_10c": ([row(1, "<image 1> Which?", "D", **CHOICES, category="Art")], ["D"], ["A"]),
    "MMStar": ([row(1, "Which?", "C", **CHOICES, category="math")], ["C"], ["The answer is A."]),
    "POPE": (
        [row(1, "Is there a dog?", "Yes", category="popular"), row(2, "Is there a cat?", "No", category="random")],
        ["Yes, there is.", "no"], ["Maybe.", "Yes or no"],
    ),
    "HallusionBench": (
        [row("VD_chart_0_0_1_0", "Is it red?", "Yes", category="VD", **{"l2-category": "chart"}),
         row("VD_chart_0_0_1_1", "Is it blue?", "No", category="VD", **{"l2-category": "chart"})],
        ["yes", "No."], ["no", "I cannot say"],
    ),
    "ChartQA_TEST": ([row(1, "How many?", "100", split="test_human")], ["104"], ["106"]),
    "DocVQA_VAL": ([row(1, "Who signed?", "['Ada Lovelace', 'Lovelace']")], ["lovelace"], ["nobody at all"]),
    "OCRBench": (
        [row(1, "What is written?", "['CENTRE']", category="Regular Text Recognition"),
         row(2, "In LaTeX?", "['x ^ 2']", category="Handwritten Mathematical Expression Recognition")],
        ["It says Centre.", "x^2"], ["center", "x_2"],
    ),
}  # fmt: skip


def forget_md5(name: str) -> None:
    """Lets a table of another md5 pass for the benchmark."""
    from vlmeval.dataset import DATASET_CLASSES

    for known in DATASET_CLASSES:
        if name in known.supported_datasets():
            getattr(known, "DATASET_MD5", {}).pop(name, None)


def score(name: str, lmu_data: Path, work_dir: Path) -> dict[str, Any]:
    """The judgements of the right answers (seed 0) and the wrong ones (seed 1), and one that is almost right."""
    rows, *answers = TABLES[name]
    columns = tuple(dict.fromkeys(column for each in rows for column in each))
    tsv_path = write_rows(rows, lmu_data / f"{name}.tsv", columns)
    forget_md5(name)
    run_vlmevalkit.check_dataset(name, tsv_path, is_original=True)
    indices = [each["index"] for each in rows]
    tsv = str(tsv_path)
    task = HarnessTask(name, tsv, tsv, True, False, "Qwen3-VL", vlmevalkit_settings(), indices, "", [])
    scored = {}
    for seed, (kind, texts) in enumerate(zip(("right", "wrong"), answers, strict=True)):
        run_dir = work_dir / name / kind
        run_dir.mkdir(parents=True)
        lines = [
            line_of(Answer(each["index"], text, "stop", None), "k") for each, text in zip(rows, texts, strict=True)
        ]
        (run_dir / "answers.jsonl").write_text("".join(lines))
        round_ = Round(seed, "k", str(run_dir / "answers.jsonl"), "", str(run_dir))
        judgements = run_vlmevalkit.ask(task, round_, LoadBalancer([NOBODY]), NOBODY)
        scored[kind] = [asdict(judgement) for judgement in judgements]
    return scored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work-dir", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    lmu_data = Path(LMUDataRoot())
    arguments.output.write_text(json.dumps({name: score(name, lmu_data, arguments.work_dir) for name in TABLES}))


if __name__ == "__main__":
    main()
