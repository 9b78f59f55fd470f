"""Makes one training file of a stage from its sources: rows of messages and pictures, with absolute picture paths.

A source is a .jsonl of the user's (picture paths relative to it, or absolute) or a dataset that ms-swift 4.6.0 knows by
its hub id. `#NUM` after either takes NUM of its rows, drawn by the seed, as ms-swift does; `ID:SUBSET` chooses a subset
and `hf::ID` or `ms::ID` the hub. The sources follow each other in the order in which they are given. Doing this ahead of
training means that it needs no network then, that every rank sees the same rows, and that the rows can be checked.

Pictures that a hub delivers inside the rows are written as files to the directory OUTPUT.pictures/, named by their sha256.

By hand: .venv/bin/python scripts data.prepare_dataset --config config/demo.yaml --stage stage1
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.files import open_atomically
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.whole_numbers import seed_number
from scripts.data.local_rows import read_local
from scripts.data.registered_rows import read_registered
from scripts.data.rows import Row
from scripts.data.sources import Source, parse_sources


def read_source(source: Source, seed: int, pictures_dir: Path) -> Iterator[Row]:
    """All rows that are taken from a source."""
    return read_local(source, seed) if source.is_file else read_registered(source, seed, pictures_dir)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sources", required=True, type=parse_sources, help="the stage's `datasets`, as a JSON list")
    parser.add_argument("--seed", required=True, type=seed_number, help="draws the rows of sources with #NUM")
    parser.add_argument("--output", required=True, type=Path, help="the .jsonl to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    pictures_dir = arguments.output.parent / f"{arguments.output.stem}.pictures"
    files = [Path(source.name) for source in arguments.sources if source.is_file]
    with owned(arguments.output, pictures_dir, inputs=files):
        num_rows = 0
        with open_atomically(arguments.output) as file:
            for source in arguments.sources:
                first = num_rows + 1
                for row in read_source(source, arguments.seed, pictures_dir):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    num_rows += 1
                log(f"{arguments.output}: rows {first} to {num_rows} are from {source.text}")


if __name__ == "__main__":
    run_program(main)
