"""What VLMEvalKit made of each answer: its tables of verdicts, as judgements with what its own parser finds in the answer."""

import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas

from scripts.common.errors import UserError
from scripts.evaluate.judgements import Judgement
from scripts.questions.tables import rows_of


def rows_in(path: Path) -> list[dict[str, str]]:
    """A table that VLMEvalKit left, as text."""
    return rows_of(pandas.read_csv(path, sep="\t", dtype=str, keep_default_na=False))


def choice_judgements(run_dir: Path, dataset: str) -> list[Judgement]:
    """Choices."""
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
    """Questions to be answered by yes or no."""
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
    """Open answers, scored by VLMEvalKit's own sum over one question (relaxed accuracy for ChartQA, ANLS for DocVQA)."""
    import ast

    from vlmeval.dataset.utils.vqa_eval import hit_calculate

    judgements = []
    for row in rows_in(the_table(run_dir, f"{dataset}_results.tsv")):
        (score,) = hit_calculate([{"match": ast.literal_eval(row["eval_match"])}], dataset)
        judgements.append(replace(open_judgement(row, float(score)), metric=OPEN_METRICS[dataset]))
    return judgements


def reading_judgements(run_dir: Path, dataset: str) -> list[Judgement]:
    """OCRBench: VLMEvalKit only gives the sum of a table, so each question is given to it as a table of its own."""
    from vlmeval.dataset.image_vqa import OCRBench

    judgements = []
    alone_path = run_dir / f"alone_{dataset}.pkl"  # of a TSV with one row, pandas would make 12 of the answer 0012
    for row in rows_in(the_table(run_dir, f"{dataset}.tsv")):
        pandas.DataFrame([row]).to_pickle(alone_path)
        judgements.append(open_judgement(row, float(OCRBench.evaluate(str(alone_path))["Final Score"])))
    return judgements


def open_judgement(row: Mapping[str, str], score: float) -> Judgement:
    """Of an open answer the whole text counts; a blank one is unparsed."""
    return Judgement(row["index"], row["prediction"], {}, row["answer"], score, row["prediction"].strip() or None)


# The metric whose mean VLMEvalKit's own sum is (dataset/image_vqa.py: evaluate_heuristic).
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
