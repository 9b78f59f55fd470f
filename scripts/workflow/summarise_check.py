"""Says in a few lines what was found sound before any training: donors, rows and questions.

The rule `check` runs it when everything that needs no GPU was fetched and checked; where something was not, Snakemake's end
lists each fault instead (scripts/workflow/failed_jobs.py).

By hand: .venv/bin/python scripts workflow.summarise_check --config config/demo.yaml
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.input_files import read_section
from scripts.common.units import size
from scripts.data.dataset_check import DatasetCheck, read_dataset_check
from scripts.donors.manifest import DonorManifest, read_manifest

NAME_OF_ROLE = {"vl": "vision donor", "llm": "language donor"}


def donor_line(donor: DonorManifest) -> str:
    return f"{NAME_OF_ROLE[donor.role]}: {donor.name}, {len(donor.files)} files, {size(donor.num_bytes)}"


def rows_line(stage: str, check: DatasetCheck) -> str:
    parts = [f"{check.num_rows:,} rows", f"{check.num_pictures:,} pictures"]
    if tokens := check.tokens:
        share = tokens.num_picture_tokens / tokens.num_tokens
        longest = int(tokens.row_tokens.max) if tokens.row_tokens else 0
        limit = f" of at most {tokens.max_length:,}" if tokens.max_length else ""
        parts += [f"{tokens.num_tokens:,} tokens ({share:.0%} of pictures)", f"the longest row has {longest:,}{limit}"]
    parts += [f"{num:,} pictures {change}" for change, num in check.num_changed_pictures.items()]
    if check.num_dropped_rows:
        parts.append(f"{check.num_dropped_rows:,} rows dropped, listed in {stage}.check.json")
    return f"{stage}: {', '.join(parts)}"


def questions_line(path: Path) -> str:
    """Of a benchmark's record: that of one's own table, that of a native one, or the checksum of a fetched table."""
    found = read_section(path).get("num_questions") if path.suffix == ".json" else None
    return f"{path.stem}: {found:,} questions" if isinstance(found, int) else f"{path.stem}: fetched, as published"


def summary(manifests: list[Path], checks: list[Path], questions: list[Path]) -> Iterator[str]:
    yield from (donor_line(read_manifest(path)) for path in manifests)
    yield from (rows_line(path.name.removesuffix(".check.json"), read_dataset_check(path)) for path in checks)
    yield from map(questions_line, questions)
    yield "all of this can be trained on and asked; `snakemake` with the same configuration goes on"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--manifests", type=Path, nargs="+", required=True, help="of both donors")
    parser.add_argument("--dataset-checks", type=Path, nargs="+", required=True, help="of both stages")
    parser.add_argument("--questions", type=Path, nargs="+", required=True, help="the record of each benchmark")
    arguments = parser.parse_args()
    print("\n".join(summary(arguments.manifests, arguments.dataset_checks, arguments.questions)))


if __name__ == "__main__":
    run_program(main)
