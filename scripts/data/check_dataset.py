"""Checks a stage's training rows and every picture in them before any training starts.

ms-swift silently puts a random other sample in the place of one that it cannot read, and with some rows that show a
picture and some that do not, ranks wait for each other for ever (ms-swift issues 4918 and 9104). Both cost hours on a
cluster; here they cost a minute. Every problem is reported with its row number; a report is written only if there is none.

By hand: .venv/bin/python scripts data.check_dataset --config config/demo.yaml --stage stage1
"""

import argparse
import hashlib
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.files import sha256_of_file
from scripts.common.json_text import json_value
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.whole_numbers import whole_number
from scripts.data.dataset_check import DatasetCheck, spread, write_dataset_check
from scripts.data.pictures import read_pictures
from scripts.data.row_problems import ROLES, images_of, row_problems
from scripts.data.rows import IMAGE_TAG

MAX_SHOWN_PER_KIND = 20
MAX_DEFAULT_WORKERS = 8
MAX_NUM_WORKERS = 1024

# The kinds of problem, in the order in which they are reported, each with its remedy.
REMEDIES = {
    "not valid JSON": "write one JSON object per line",
    "no messages": 'give "messages": [{"role": ..., "content": ...}, ...]',
    "a message that ms-swift does not accept": f"give each message a role ({', '.join(sorted(ROLES))}) and text",
    "no assistant turn": "add what the model is to answer; such a row trains nothing",
    "empty assistant turn": "fill in the answer or drop the row",
    "last turn is not the assistant's": "end the row with the answer",
    "turns do not alternate": "after the system message alternate user and assistant",
    "number of pictures does not match": f"give one {IMAGE_TAG} in the text for each picture",
    "picture path not absolute": "prepare the rows with scripts/data/prepare_dataset.py, which makes paths absolute",
    "picture not found": "restore the file or drop the row",
    "picture unreadable": "replace the file or drop the row",
    "rows with and without pictures are mixed": "train them apart; mixed they can hang a run on several GPUs",
}


@dataclass
class Findings:
    """What the rows of a dataset hold, and what is wrong with them, by kind, as (row number, detail)."""

    num_rows: int = 0
    num_duplicate_rows: int = 0
    num_assistant_turns: int = 0
    num_picture_references: int = 0
    rows_with_pictures: list[int] = field(default_factory=list)
    rows_without_pictures: list[int] = field(default_factory=list)
    rows_of_picture: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    problems: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))


def read_rows(dataset_path: Path) -> Findings:
    """Reads all rows and checks each by itself."""
    findings = Findings()
    digests: Counter[bytes] = Counter()
    with open(dataset_path, "rb") as file:
        for number, line in enumerate(file, start=1):
            findings.num_rows += 1
            digests[hashlib.blake2b(line.strip(), digest_size=16).digest()] += 1
            try:
                row = json_value(line)
            except ValueError as error:
                findings.problems["not valid JSON"].append((number, str(error)))
                continue
            for kind, detail in row_problems(row):
                findings.problems[kind].append((number, detail))
            if not isinstance(row, dict):
                continue
            count_row(findings, number, row)
    findings.num_duplicate_rows = findings.num_rows - len(digests)
    return findings


def count_row(findings: Findings, number: int, row: dict[str, Any]) -> None:
    messages = row.get("messages") if isinstance(row.get("messages"), list) else []
    findings.num_assistant_turns += sum(isinstance(m, dict) and m.get("role") == "assistant" for m in messages or [])
    paths = [image for image in images_of(row) if isinstance(image, str)]
    findings.num_picture_references += len(paths)
    (findings.rows_with_pictures if paths else findings.rows_without_pictures).append(number)
    for path in dict.fromkeys(paths):
        findings.rows_of_picture[path].append(number)


def mixed_rows(findings: Findings) -> list[tuple[int, str]]:
    """The fewer of the rows with and without pictures, if there are both."""
    with_pictures, without_pictures = findings.rows_with_pictures, findings.rows_without_pictures
    if not with_pictures or not without_pictures:
        return []
    if len(with_pictures) < len(without_pictures):
        return [(number, "has a picture, most have none") for number in with_pictures]
    return [(number, "has no picture, most have one") for number in without_pictures]


def describe_problems(dataset_path: Path, findings: Findings) -> str:
    """All kinds of problem with their first rows and their remedies."""
    bad_rows = {number for found in findings.problems.values() for number, _ in found}
    lines = [f"{dataset_path}: {len(bad_rows)} of {findings.num_rows} rows cannot be trained on"]
    for kind, remedy in REMEDIES.items():
        found = sorted(findings.problems.get(kind, []))
        if not found:
            continue
        lines.append(f"  {kind}: {len(found)} (remedy: {remedy})")
        lines += [
            f"    row {number}" + (f": {detail}" if detail else "") for number, detail in found[:MAX_SHOWN_PER_KIND]
        ]
        if len(found) > MAX_SHOWN_PER_KIND:
            lines.append(f"    and {len(found) - MAX_SHOWN_PER_KIND} more")
    return "\n".join(lines)


def check(dataset_path: Path, num_workers: int) -> DatasetCheck:
    """Reads all rows and pictures; raises UserError with every problem if there is one."""
    if not dataset_path.is_file():
        raise UserError(f"{dataset_path}: not found; expected a .jsonl of training rows; check the path")
    if dataset_path.stat().st_size == 0:
        raise UserError(f"{dataset_path}: empty; expected at least one row; check the stage's `datasets` in the config")
    findings = read_rows(dataset_path)
    log(f"{dataset_path}: {findings.num_rows} rows, {len(findings.rows_of_picture)} pictures")

    sizes: list[tuple[int, int]] = []
    absolute_paths = [path for path in findings.rows_of_picture if Path(path).is_absolute()]
    for picture in read_pictures(absolute_paths, num_workers):
        if not picture.problem:
            sizes.append((picture.width_px, picture.height_px))
        else:
            rows = findings.rows_of_picture[picture.path]
            findings.problems[picture.problem] += [(number, picture.detail) for number in rows]
    if mixed := mixed_rows(findings):
        findings.problems["rows with and without pictures are mixed"] = mixed
    if any(findings.problems.values()):
        raise UserError(describe_problems(dataset_path, findings))

    if not findings.rows_with_pictures:
        log(f"{dataset_path}: note: no row has a picture, so nothing trains the vision tower or the aligner")
    if findings.num_duplicate_rows:
        log(f"{dataset_path}: note: {findings.num_duplicate_rows} rows repeat an earlier one word for word")
    return DatasetCheck(
        num_rows=findings.num_rows,
        num_duplicate_rows=findings.num_duplicate_rows,
        num_assistant_turns=findings.num_assistant_turns,
        num_pictures=len(findings.rows_of_picture),
        num_picture_references=findings.num_picture_references,
        picture_width_px=spread([width_px for width_px, _ in sizes]),
        picture_height_px=spread([height_px for _, height_px in sizes]),
        picture_area_px=spread([width_px * height_px for width_px, height_px in sizes]),
        num_bytes=dataset_path.stat().st_size,
        sha256=sha256_of_file(dataset_path),
    )


def parse_arguments() -> argparse.Namespace:
    num_workers = min(MAX_DEFAULT_WORKERS, len(os.sched_getaffinity(0)))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", required=True, type=Path, help="the rows, as prepare_dataset.py writes them")
    parser.add_argument("--output", required=True, type=Path, help="the report to write if all is well")
    parser.add_argument(
        "--num-workers",
        type=whole_number(1, MAX_NUM_WORKERS),
        default=num_workers,
        help="processes that decode pictures",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with owned(arguments.output, inputs=[arguments.dataset]):
        report = check(arguments.dataset, arguments.num_workers)
        write_dataset_check(arguments.output, report)
        log(f"{arguments.output}: {report.num_rows} rows and {report.num_pictures} pictures are sound")


if __name__ == "__main__":
    run_program(main)
