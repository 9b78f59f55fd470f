"""Checks a stage's training rows and every picture in them before any training starts, by the training's own encoding.

ms-swift silently puts a random other sample in the place of one that it cannot read, or ends in mid-run at a row that is too
long or whose picture is too thin. Both cost hours on a cluster; here they cost minutes. Every problem is reported with the
user's own file and line. Rows that cannot be trained on refuse the dataset, or are dropped and listed (`data.bad_rows`).

By hand: .venv/bin/python scripts data.check_dataset --config config/demo.yaml --stage stage1
"""

import argparse
import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import open_atomically, sha256_of_file
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.settings import json_settings
from scripts.common.whole_numbers import whole_number
from scripts.data.bad_rows import MAX_NUM_SHOWN, BadRows, DroppedRow
from scripts.data.dataset_check import DatasetCheck, TokenCounts, length_bins, spread, write_dataset_check
from scripts.data.encode_rows import encode_rows
from scripts.data.findings import Findings, describe_problems, read_rows
from scripts.data.pictures import read_pictures
from scripts.data.row_origins import RowOrigins, read_row_origins
from scripts.data.settings import REFUSE_ALL, DataSettings, EncodingSettings
from scripts.data.training_encoding import RowEncoder, training_template

MAX_DEFAULT_WORKERS = 8
MAX_NUM_WORKERS = 1024

Sizes = dict[str, tuple[int, int]]  # width and height of each picture, by its path


@dataclass(frozen=True)
class CheckJob:
    """What is checked, and how. Without `model_dir` rows are not encoded; without `origins` they are known by their numbers."""

    dataset_path: Path
    settings: DataSettings
    num_workers: int
    origins: RowOrigins | None
    model_dir: Path | None
    encoding: EncodingSettings
    kept_path: Path | None

    def place(self, number: int) -> str:
        """Where a row is from, as messages say it."""
        return "{}, line {}".format(*self.origins.place(number)) if self.origins else f"row {number}"

    def dropped(self, bad: Mapping[int, str]) -> list[DroppedRow]:
        """The rows that are left out, those of the preparation before those of the check."""
        origins = self.origins
        places = {number: origins.place(number) if origins else (str(self.dataset_path), number) for number in bad}
        found = [DroppedRow(*places[number], reason) for number, reason in sorted(bad.items())]
        return [*(origins.dropped if origins else []), *found]


@dataclass
class Lengths:
    """The tokens of the rows that were encoded, in their order."""

    max_length: int | None
    num_tokens: "array[int]" = field(default_factory=lambda: array("Q"))
    num_picture_tokens: int = 0
    num_trained_tokens: int = 0

    def counts(self) -> TokenCounts | None:
        """What the report says of them; None where no row was encoded."""
        if not self.num_tokens:
            return None
        return TokenCounts(
            num_tokens=sum(self.num_tokens),
            num_picture_tokens=self.num_picture_tokens,
            num_trained_tokens=self.num_trained_tokens,
            row_tokens=spread(self.num_tokens),
            max_length=self.max_length,
            lengths=length_bins(self.num_tokens),
        )


def check_pictures(findings: Findings, num_workers: int) -> Sizes:
    """Decodes every picture in full; what is wrong with one is a problem of all of its rows."""
    sizes: Sizes = {}
    for picture in read_pictures([path for path in findings.rows_of_picture if Path(path).is_absolute()], num_workers):
        if picture.problem:
            findings.problems[picture.problem] += [
                (number, picture.detail) for number in findings.rows_of_picture[picture.path]
            ]
        else:
            sizes[picture.path] = (picture.width_px, picture.height_px)
    return sizes


def check_encoding(job: CheckJob, findings: Findings, sizes: Sizes) -> TokenCounts | None:
    """Encodes every row that has no problem yet, as training will."""
    if job.model_dir is None:
        return None
    encoder = RowEncoder(training_template(job.model_dir, job.encoding), sizes)
    lengths = Lengths(encoder.max_length)
    for number, row in encode_rows(
        job.dataset_path, encoder, findings.num_rows, findings.bad_rows().keys(), job.num_workers
    ):
        if row.problem:
            findings.problems[row.problem].append((number, row.detail))
            continue
        lengths.num_tokens.append(row.num_tokens)
        lengths.num_picture_tokens += row.num_picture_tokens
        lengths.num_trained_tokens += row.num_trained_tokens
    return lengths.counts()


def write_kept(dataset_path: Path, kept_path: Path, bad: Mapping[int, str]) -> None:
    """The rows that are trained on."""
    with open(dataset_path, encoding="utf-8", newline="\n") as rows, open_atomically(kept_path) as kept:
        kept.writelines(row for number, row in enumerate(rows, start=1) if number not in bad)


def check(job: CheckJob) -> DatasetCheck:
    """Reads all rows and pictures; raises UserError with every problem where they refuse the dataset."""
    path = job.dataset_path
    if not path.is_file():
        raise UserError(f"{path}: not found; expected prepared training rows; check the path")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: empty; expected at least one row; check the stage's `datasets` in the config")
    findings = read_rows(path)
    if job.origins and len(job.origins.line_of_row) != findings.num_rows:
        raise UserError(
            f"{path}: {findings.num_rows} rows found, {len(job.origins.line_of_row)} expected by the record of where they are "
            "from: it was cut, or added to, after it was prepared; remove it, so that it is made again"
        )
    log(f"{path}: {findings.num_rows} rows, {len(findings.rows_of_picture)} pictures")
    sizes = check_pictures(findings, job.num_workers)
    tokens = check_encoding(job, findings, sizes)
    bad = findings.bad_rows()
    if bad and job.settings.bad_rows == "refuse":
        raise UserError(describe_problems(path, findings, job.place))
    dropped = job.dropped(bad)
    BadRows(job.settings, dropped).settle(findings.num_rows + len(dropped) - len(bad), str(path))
    trained_path = job.kept_path or path
    if job.kept_path:
        write_kept(path, job.kept_path, bad)
    if bad:
        findings = read_rows(trained_path)
    for row in dropped[:MAX_NUM_SHOWN]:
        log(f"dropped: {row.file}, line {row.line}: {row.reason}")

    if not findings.rows_of_picture:
        log(f"{path}: note: no row has a picture, so nothing trains the vision tower or the aligner")
    if findings.num_duplicate_rows:
        log(f"{path}: note: {findings.num_duplicate_rows} rows repeat an earlier one word for word")
    trained_sizes = [sizes[picture] for picture in findings.rows_of_picture]
    return DatasetCheck(
        num_rows=findings.num_rows,
        num_dropped_rows=len(dropped),
        num_duplicate_rows=findings.num_duplicate_rows,
        num_assistant_turns=findings.num_assistant_turns,
        num_pictures=len(findings.rows_of_picture),
        num_picture_references=findings.num_picture_references,
        picture_width_px=spread([width_px for width_px, _ in trained_sizes]),
        picture_height_px=spread([height_px for _, height_px in trained_sizes]),
        picture_area_px=spread([width_px * height_px for width_px, height_px in trained_sizes]),
        num_changed_pictures=dict(job.origins.num_changed_pictures) if job.origins else {},
        tokens=tokens,
        dropped=dropped,
        num_bytes=trained_path.stat().st_size,
        sha256=sha256_of_file(trained_path),
    )


def parse_arguments() -> argparse.Namespace:
    num_workers = min(MAX_DEFAULT_WORKERS, len(os.sched_getaffinity(0)))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", required=True, type=Path, help="the rows, as prepare_dataset.py writes them")
    parser.add_argument("--output", required=True, type=Path, help="the report to write if all is well")
    parser.add_argument("--origins", type=Path, help="which row is from where, as prepare_dataset.py writes it")
    parser.add_argument("--kept", type=Path, help="where to write the rows that are trained on")
    parser.add_argument(
        "--settings",
        type=json_settings(DataSettings, "data"),
        default=REFUSE_ALL,
        help="the config's `data`, as JSON; without it each bad row refuses the whole",
    )
    parser.add_argument("--model-dir", type=Path, help="the model's files without weights; rows are encoded with them")
    parser.add_argument(
        "--encoding",
        type=json_settings(EncodingSettings, "encoding"),
        default=EncodingSettings(environment={}, flags={}),
        help="of the stage: environment, and flags of the template",
    )
    parser.add_argument(
        "--num-workers",
        type=whole_number(1, MAX_NUM_WORKERS),
        default=num_workers,
        help="processes that decode pictures and encode rows",
    )
    arguments = parser.parse_args()
    if arguments.settings.bad_rows == "drop" and not arguments.kept:
        parser.error("bad_rows: drop found without --kept; expected a file for the rows that are trained on")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    inputs = [path for path in (arguments.dataset, arguments.origins) if path]
    with owned(*[path for path in (arguments.output, arguments.kept) if path], inputs=inputs):
        job = CheckJob(
            dataset_path=arguments.dataset,
            settings=arguments.settings,
            num_workers=arguments.num_workers,
            origins=read_row_origins(arguments.origins) if arguments.origins else None,
            model_dir=arguments.model_dir,
            encoding=arguments.encoding,
            kept_path=arguments.kept,
        )
        report = check(job)
        write_dataset_check(arguments.output, report)
        log(f"{arguments.output}: {report.num_rows} rows and {report.num_pictures} pictures are sound")


if __name__ == "__main__":
    run_program(main)
