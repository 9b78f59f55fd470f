"""Fetches a benchmark by EvalScope's own loader (native backend) and writes every question, as it is asked, into one table.

The table holds everything that EvalScope would ask: prompts, options, answers, pictures, and its own objects without the
pictures (native_samples.py). Compute nodes need nothing else, no hub and no cache. A file beside it, written last, has its
source and md5. A table in place that has this md5 is left alone; one that has another is refused, never replaced.

By hand: .venv/bin/python scripts questions.fetch_native_benchmark --config FILE --dataset mmmu
"""

import argparse
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas

from scripts.common.errors import UserError, run_program
from scripts.common.files import md5_of_file, write_json_atomically
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import read_object
from scripts.questions.native_samples import row_of
from scripts.questions.tables import write_benchmark

# EvalScope's name of the subset of a benchmark that has only one.
ONLY_SUBSET = "default"


@dataclass(frozen=True)
class FetchedTable:
    """Where a table comes from: the file beside it."""

    adapter: str
    source: str
    revision: str | None
    evaluation_version: str | None
    evalscope: str
    num_questions: int
    md5: str


def linked_copy(snapshot_dir: Path, copy_dir: Path) -> Path:
    """A directory of links to a snapshot's files: EvalScope removes one of them, dataset_infos.json."""
    copy_dir.mkdir()
    for path in snapshot_dir.iterdir():
        (copy_dir / path.name).symlink_to(path.absolute())
    return copy_dir


def loaded(adapter: str, hub: str, snapshot_dir: Path | None, cache_dir: Path) -> Any:
    """EvalScope's benchmark with its dataset; raises UserError with its reason when it cannot be loaded."""
    from evalscope import TaskConfig
    from evalscope.api.registry import get_benchmark

    arguments: dict[str, Any] = {}
    if snapshot_dir:
        if not snapshot_dir.is_dir():
            raise UserError(
                f"{snapshot_dir}: no directory; expected a snapshot of the dataset that EvalScope reads as {adapter}; put it "
                "there, or remove the path from evaluate.benchmarks to have it fetched"
            )
        arguments["local_path"] = str(linked_copy(snapshot_dir, cache_dir / "snapshot"))
    config = TaskConfig(
        datasets=[adapter], dataset_hub=hub, dataset_dir=str(cache_dir), dataset_args={adapter: arguments}, model="none"
    )
    benchmark = get_benchmark(adapter, config)
    try:
        benchmark.load_dataset()
    except Exception as error:
        where = snapshot_dir or f"{benchmark.dataset_id} ({hub})"
        raise UserError(
            f"{where}: EvalScope could not load {adapter}: {type(error).__name__}: {error}; run it where the hub can be "
            "reached (`snakemake prefetch`), or give the directory of a snapshot in evaluate.benchmarks"
        ) from None
    return benchmark


def rows_of(benchmark: Any) -> Iterator[dict[str, str]]:
    """The table's rows, subset by subset."""
    subsets = [subset for subset, samples in benchmark.test_dataset.items() if len(samples)]
    for subset in subsets:
        for number, sample in enumerate(benchmark.test_dataset[subset]):
            index = str(number) if len(subsets) == 1 else f"{subset}/{number}"
            row = row_of(index, subset, benchmark.eval_split or "all", sample)
            group = sample.metadata.get("category") or ("" if subset == ONLY_SUBSET else subset)
            yield {**row, "category": str(group)}


def write_table(benchmark: Any, adapter: str, tsv_path: Path) -> int:
    """Writes the table; the number of its questions."""
    rows = list(rows_of(benchmark))
    if not rows:
        raise UserError(f"{adapter}: EvalScope loaded no questions; expected some; see the log above")
    write_benchmark(pandas.DataFrame(rows).fillna(""), tsv_path)
    return len(rows)


def is_in_place(tsv_path: Path, record_path: Path) -> bool:
    """Whether the table is there, with the md5 in the file beside it; raises UserError when it is another one."""
    if not tsv_path.exists():
        return False
    found = md5_of_file(tsv_path)
    expected = read_object(FetchedTable, record_path).md5 if record_path.exists() else None
    if found != expected:
        raise UserError(
            f"{tsv_path}: md5 {found} found, {expected or 'no record of it'} in {record_path.name}; it was left as it is: move "
            "it away to have it made again"
        )
    return True


def fetch(arguments: argparse.Namespace) -> None:
    """Writes the table and, last, its record."""
    arguments.tsv.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{arguments.tsv.stem}.cache-"
    for leftover in arguments.tsv.parent.glob(f"{prefix}*"):  # of a killed run
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=arguments.tsv.parent, prefix=prefix) as cache_dir:
        os.environ["HF_DATASETS_CACHE"] = f"{cache_dir}/datasets"  # read when `datasets` is imported, by EvalScope
        benchmark = loaded(arguments.adapter, arguments.hub, arguments.snapshot_dir, Path(cache_dir))
        num_questions = write_table(benchmark, arguments.adapter, arguments.tsv)
    fetched = FetchedTable(
        adapter=arguments.adapter,
        source=str(arguments.snapshot_dir) if arguments.snapshot_dir else f"{arguments.hub}:{benchmark.dataset_id}",
        revision=benchmark.dataset_revision,
        evaluation_version=benchmark.benchmark_meta.evaluation_version,
        evalscope=importlib.metadata.version("evalscope"),
        num_questions=num_questions,
        md5=md5_of_file(arguments.tsv),
    )
    write_json_atomically(arguments.record, asdict(fetched))
    log(f"{arguments.tsv}: {num_questions} questions, md5 {fetched.md5}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--adapter", required=True, help="EvalScope's name of the benchmark")
    parser.add_argument("--hub", required=True, choices=("modelscope", "huggingface"))
    parser.add_argument("--snapshot-dir", type=Path, help="of the dataset, instead of a hub's")
    parser.add_argument("--tsv", type=Path, required=True, help="where the table lies, or is put")
    parser.add_argument("--record", type=Path, required=True, help="written last, once the table is whole and right")
    arguments = parser.parse_args()
    with owned(arguments.tsv, arguments.record):
        if is_in_place(arguments.tsv, arguments.record):
            arguments.record.touch()
        else:
            fetch(arguments)


if __name__ == "__main__":
    run_program(main)
