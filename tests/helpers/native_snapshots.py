"""Small snapshots of the benchmarks' datasets, in the layout and with the columns that EvalScope's adapters read.

A stand-in for the hub: the questions are made up, the files (parquet, README.md with the configurations) are not. Runs in the
environment evaluate. By hand, from the repository root:
  .venvs/evaluate/bin/python tests/helpers/native_snapshots.py --output-dir work/snapshots
"""

import argparse
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from PIL import Image, ImageDraw


@dataclass(frozen=True)
class Snapshot:
    """Rows by (configuration, split); and, in the order in which they are asked, a right and a wrong answer to each."""

    tables: dict[tuple[str, str], list[dict[str, Any]]]
    right: list[str]
    wrong: list[str]


def picture(text: str, kind: str = "PNG") -> dict[str, Any]:
    """As a hub's parquet holds a picture."""
    image = Image.new("RGB", (112, 112), "white")
    ImageDraw.Draw(image).text((30, 40), text, fill="black")
    data = io.BytesIO()
    image.save(data, kind)
    return {"bytes": data.getvalue(), "path": None}


def mmmu() -> Snapshot:
    """One subject with a choice and an open question, one with two pictures; the other 28 subjects have one question each."""
    from evalscope.benchmarks.mmmu.mmmu_adapter import SUBSET_LIST

    tables, right, wrong = {}, [], []
    for subject in SUBSET_LIST:
        base = {"explanation": "", "subfield": "x", "img_type": "['Tables']", "topic_difficulty": "Easy"}
        base |= {f"image_{number}": None for number in range(2, 8)}
        rows = [{
            **base, "id": f"validation_{subject}_1", "question": f"<image 1> What is {subject}? {{x}}",
            "options": "['one', 'two', '<image 2>']" if subject == "Art" else "['one', 'two', 'three']",
            "image_1": picture(subject), "answer": "B", "question_type": "multiple-choice",
        }]  # fmt: skip
        right.append("It is two.\nANSWER: B")
        wrong.append("ANSWER: C")
        if subject == "Art":
            rows[0]["image_2"] = picture("second")
        if subject == "Math":
            rows.append({
                **base, "id": "validation_Math_2", "question": "How many days are in <image 1>?", "options": "[]",
                "image_1": picture("days"), "answer": "['5', 'five']", "question_type": "open",
            })  # fmt: skip
            right.append("ANSWER: 5")
            wrong.append("ANSWER: 6")
        tables[subject, "validation"] = rows
    return Snapshot(tables, right, wrong)


def mmmu_pro() -> Snapshot:
    rows = [
        {
            "id": f"test_{subject}", "question": "<image 1> Which?", "options": "['p', 'q', 'r', 's']", "explanation": "?",
            "image_1": picture(subject), **{f"image_{number}": None for number in range(2, 8)}, "img_type": "x",
            "answer": "D", "topic_difficulty": "Hard", "subject": subject,
        }
        for subject in ("Art", "Music")
    ]  # fmt: skip
    return Snapshot({("standard (4 options)", "test"): rows}, ["ANSWER: D"] * 2, ["ANSWER: A"] * 2)


def mmstar() -> Snapshot:
    rows = [
        {
            "index": number, "question": "Which? Options: A: x, B: y, C: z, D: w", "image": picture(str(number), "JPEG"),
            "answer": "C", "category": category, "l2_category": "image emotion",
            "meta_info": {"source": "MMBench", "split": "val", "image_path": "images/0.jpg"},
        }
        for number, category in enumerate(["math", "coarse perception"])
    ]  # fmt: skip
    return Snapshot({("val", "val"): rows}, ["ANSWER: C"] * 2, ["ANSWER: B"] * 2)


def mmbench() -> Snapshot:
    def row(hint: str, *options: str) -> dict[str, Any]:
        return {
            "index": 1, "question": "Which?", "hint": hint, **dict(zip("ABCD", [*options, "nan", "nan"], strict=False)),
            "answer": "B", "category": "identity_reasoning", "image": picture("bench", "JPEG"), "source": "x",
            "L2-category": "attribute_reasoning", "comment": "nan", "split": "dev",
        }  # fmt: skip

    tables = {("cn", "dev"): [row("nan", "甲", "乙")], ("en", "dev"): [row("Look.", "a", "b")]}
    return Snapshot(tables, ["ANSWER: B"] * 2, ["ANSWER: A"] * 2)


def ai2d() -> Snapshot:
    rows = [{"question": "Which?", "options": ["a", "b", "c", "d"], "answer": "2", "image": picture("leaf", "JPEG")}]
    return Snapshot({("default", "test"): rows}, ["ANSWER: C"], ["ANSWER: D"])


def chartqa() -> Snapshot:
    rows = [
        {"type": kind, "question": "How many?", "answer": "100", "image": picture("chart")}
        for kind in ("human_test", "augmented_test")
    ]
    return Snapshot({("default", "test"): rows}, ["ANSWER: 104"] * 2, ["ANSWER: 106"] * 2)


def docvqa() -> Snapshot:
    rows = [{
        "questionId": "1", "question": "Who signed?", "question_types": ["handwritten"], "image": picture("Ada"), "docId": 3,
        "ucsf_document_id": "x", "ucsf_document_page_no": "1", "answers": ["Ada Lovelace", "Lovelace"],
        "data_split": "val",
    }]  # fmt: skip
    return Snapshot({("DocVQA", "validation"): rows}, ["ANSWER: Lovelace"], ["ANSWER: nobody at all"])


def ocrbench() -> Snapshot:
    rows = [
        {"dataset": "IIIT5K", "question": "what is written?", "question_type": "Regular Text Recognition",
         "answer": ["CENTRE"], "image": picture("CENTRE", "JPEG")},
        {"dataset": "HME100k", "question": "write it in LaTeX",
         "question_type": "Handwritten Mathematical Expression Recognition", "answer": ["x ^ 2"], "image": picture("x2", "JPEG")},
    ]  # fmt: skip
    return Snapshot({("default", "test"): rows}, ["It says Centre.", "x^2"], ["center", "x_2"])


def mathvista() -> Snapshot:
    base = {
        "image": "images/1.jpg", "unit": None, "query": "", "metadata": {"category": "math-targeted-vqa", "grade": "x"},
        "decoded_image": picture("angle", "JPEG"),
    }  # fmt: skip
    rows = [
        {**base, "pid": "1", "question": "Which?", "choices": ["10", "20", "30"], "precision": None, "answer": "20",
         "question_type": "multi_choice", "answer_type": "text"},
        {**base, "pid": "2", "question": "How long?", "choices": None, "precision": 1.0, "answer": "1.2",
         "question_type": "free_form", "answer_type": "float"},
    ]  # fmt: skip
    return Snapshot({("default", "testmini"): rows}, ["ANSWER: B", "\\boxed{1.20}"], ["ANSWER: C", "\\boxed{1.3}"])


def realworldqa() -> Snapshot:
    rows = [
        {
            "question": "Which?\nA. left\nB. right",
            "answer": "A",
            "image_path": "1.webp",
            "image": picture("road", "WEBP"),
        }
    ]
    return Snapshot({("default", "test"): rows}, ["ANSWER: A"], ["ANSWER: B"])


def hallusionbench() -> Snapshot:
    """The second question has no picture, as those of the kind VS without a figure."""
    base = {
        "subcategory": "chart",
        "set_id": "0",
        "question_id": "0",
        "sample_note": "",
        "gt_answer_details": "",
        "filename": None,
    }
    rows = [
        {**base, "category": "VD", "visual_input": "1", "figure_id": "1", "question": "Is it red?", "gt_answer": "1",
         "image": picture("red")},
        {**base, "category": "VS", "visual_input": "0", "figure_id": "0", "question": "Is the sky green?", "gt_answer": "0",
         "image": None},
    ]  # fmt: skip
    return Snapshot({("default", "image"): rows}, ["Yes, YES", "no"], ["NO", "YES or NO"])


def pope() -> Snapshot:
    tables = {
        ("Full", split): [{
            "id": "0", "question_id": "1", "question": "Is there a dog in the image?", "answer": "yes",
            "image_source": "x", "image": picture("dog"), "category": split,
        }]
        for split in ("popular", "adversarial", "random")
    }  # fmt: skip
    return Snapshot(tables, ["YES"] * 3, ["There might be."] * 3)


def blink() -> Snapshot:
    from evalscope.benchmarks.blink.blink_adapter import SUBSET_LIST

    tables: dict[tuple[str, str], list[dict[str, Any]]] = {
        (subset, "val"): [{
            "idx": f"val_{subset}_1", "question": "Which?", "sub_task": subset, "choices": ["left", "right"], "answer": "(B)",
            "prompt": "Which is it?\n(A) left\n(B) right", "image_1": picture(subset, "JPEG"), "image_2": picture("2", "JPEG"),
            "image_3": None, "image_4": None, "explanation": "",
        }]
        for subset in SUBSET_LIST
    }  # fmt: skip
    return Snapshot(tables, ["ANSWER: B"] * len(tables), ["ANSWER: A"] * len(tables))


SNAPSHOTS = {
    make.__name__: make
    for make in (
        mmmu, mmmu_pro, mmstar, mmbench, ai2d, chartqa, docvqa, ocrbench, mathvista, realworldqa, hallusionbench, pope, blink,
    )
}  # fmt: skip


def write_snapshot(snapshot: Snapshot, directory: Path) -> None:
    """Parquet files, and the README.md that says which of them are which configuration and split."""
    configurations: dict[str, list[str]] = {}
    for (configuration, split), rows in snapshot.tables.items():
        path = directory / configuration / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame(rows).to_parquet(path)
        entry = f"  - split: {split}\n    path: {json.dumps(f'{configuration}/{path.name}')}\n"
        configurations.setdefault(configuration, []).append(entry)
    lines = ["---\nconfigs:\n"]
    for configuration, entries in configurations.items():
        lines.append(f"- config_name: {json.dumps(configuration)}\n  data_files:\n{''.join(entries)}")
    (directory / "README.md").write_text("".join([*lines, "---\n"]), encoding="utf-8")


def main() -> None:
    """Writes NAME/ for each benchmark, and NAME.json with its right and wrong answers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output-dir", required=True, type=Path)
    output_dir = parser.parse_args().output_dir
    for name, make in SNAPSHOTS.items():
        snapshot = make()
        write_snapshot(snapshot, output_dir / name)
        answers = {"right": snapshot.right, "wrong": snapshot.wrong}
        (output_dir / f"{name}.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
