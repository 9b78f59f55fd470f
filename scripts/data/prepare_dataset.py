"""Makes one training file of a stage from its sources: rows as ms-swift trains them, their pictures as files.

A source is a file of the user's (.jsonl, .json or .csv in any form that ms-swift 4.6.0 documents; picture paths relative to it,
or absolute) or a dataset that ms-swift knows by its hub id. `#NUM` after either takes NUM of its rows, drawn by the seed, as
ms-swift does; `ID:SUBSET` chooses a subset and `hf::ID` or `ms::ID` the hub. The sources follow each other in the order in
which they are given. Doing this ahead of training means that it needs no network then, that every rank sees the same rows, and
that the rows can be checked.

Pictures become what a person sees (scripts/data/seen_pictures.py). Those that arrive inside the rows, or from an address, and
those that are changed, are written to the directory STAGE.pictures/ beside the output, named by their sha256.

By hand: .venv/bin/python scripts data.prepare_dataset --config config/demo.yaml --stage stage1
"""

import argparse
import json
from array import array
from collections.abc import Iterator
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import open_atomically
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.settings import json_settings
from scripts.common.whole_numbers import seed_number
from scripts.data.bad_rows import BadRows, DroppedRow
from scripts.data.local_rows import TakenRow, read_local
from scripts.data.made_pictures import PictureMaker
from scripts.data.registered_rows import read_registered
from scripts.data.row_files import RowProblem
from scripts.data.row_origins import RowOrigins, write_row_origins
from scripts.data.rows import Row
from scripts.data.settings import REFUSE_ALL, DataSettings
from scripts.data.sources import Source, parse_sources

OTHER_LINE_ENDS = "\x85\u2028\u2029"


def read_source(source: Source, seed: int, settings: DataSettings) -> Iterator[TakenRow]:
    """All rows that are taken from a source."""
    return read_local(source, seed, settings.ignored_keys) if source.is_file else read_registered(source, seed)


def one_line(row: Row) -> str:
    """A row as JSON on one line, also for readers that take other marks than LF for the end of one, as ms-swift's does."""
    text = json.dumps(row, ensure_ascii=False)
    for mark in OTHER_LINE_ENDS:
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text + "\n"


def prepare(
    sources: list[Source], seed: int, settings: DataSettings, output_path: Path, pictures_dir: Path
) -> RowOrigins:
    """Writes the rows; raises UserError, with nothing written, where some are bad and may not be dropped."""
    pictures, bad = PictureMaker(pictures_dir), BadRows(settings)
    source_of_row, line_of_row = array("L"), array("L")
    with open_atomically(output_path) as file:
        for number, source in enumerate(sources):
            first = len(source_of_row) + 1
            for taken in read_source(source, seed, settings):
                try:
                    if isinstance(taken.row, RowProblem):
                        raise taken.row
                    row = taken.row
                    if "images" in row:
                        row["images"] = [pictures.path_of(image) for image in row["images"]]
                    file.write(one_line(row))
                except RowProblem as problem:
                    bad.found.append(DroppedRow(source.name, taken.place, str(problem)))
                    continue
                except UserError as error:  # no fault of the row: there is no network, or a fetched picture was changed
                    raise UserError(f"{source.name}, line {taken.place}: {error}") from None
                source_of_row.append(number)
                line_of_row.append(taken.place)
            log(f"{output_path}: rows {first} to {len(source_of_row)} are from {source.text}")
        bad.settle(len(source_of_row) + len(bad.found), str(output_path))
    for change, num in sorted(pictures.num_changed.items()):
        log(f"{output_path}: note: {num} pictures: {change}")
    return RowOrigins(
        sources=[source.name for source in sources],
        source_of_row=source_of_row.tolist(),
        line_of_row=line_of_row.tolist(),
        dropped=bad.found,
        num_changed_pictures=dict(pictures.num_changed),
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sources", required=True, type=parse_sources, help="the stage's `datasets`, as a JSON list")
    parser.add_argument("--seed", required=True, type=seed_number, help="draws the rows of sources with #NUM")
    parser.add_argument(
        "--settings",
        type=json_settings(DataSettings, "data"),
        default=REFUSE_ALL,
        help="the config's `data`, as JSON; without it each bad row refuses the whole",
    )
    parser.add_argument("--output", required=True, type=Path, help="the .jsonl to write")
    parser.add_argument("--origins", type=Path, help="also write which row is from where")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    stage = arguments.output.name.removesuffix(".prepared.jsonl").removesuffix(".jsonl")
    pictures_dir = arguments.output.parent / f"{stage}.pictures"
    files = [Path(source.name) for source in arguments.sources if source.is_file]
    outputs = [path for path in (arguments.output, arguments.origins, pictures_dir) if path]
    with owned(*outputs, inputs=files):
        origins = prepare(arguments.sources, arguments.seed, arguments.settings, arguments.output, pictures_dir)
        if arguments.origins:
            write_row_origins(arguments.origins, origins)


if __name__ == "__main__":
    run_program(main)
