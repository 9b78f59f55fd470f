"""Checks your own table of questions before anything is trained: a row that cannot be asked would be found only hours later.

By hand: .venv/bin/python scripts questions.check_table --config FILE --benchmark NAME
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import md5_of_file
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import write_sealed
from scripts.questions.own_tables import require_own_table
from scripts.questions.pictures import pictures_of
from scripts.questions.tables import read_benchmark, require_scorable


@dataclass(frozen=True)
class CheckedTable:
    """The record of a table that can be asked."""

    md5: str
    num_questions: int


def check_table(path: Path, backend: str) -> CheckedTable:
    """Raises UserError where a question of the table could not be asked or scored by EvalScope's backend."""
    for_vlmevalkit = backend == "vlmevalkit"
    table = read_benchmark(path, needs_pictures=for_vlmevalkit)
    pictures = pictures_of(table, path)
    if not any(pictures):
        raise UserError(f"{path}: no question has a picture; expected at least one; correct the table")
    if for_vlmevalkit:
        require_scorable(table, path)
    require_own_table(path, table, pictures, for_vlmevalkit=for_vlmevalkit)
    return CheckedTable(md5_of_file(path), len(table))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--backend", choices=("vlmevalkit", "native"), required=True)
    parser.add_argument("--output", type=Path, required=True, help="the record to write if all is well")
    arguments = parser.parse_args()
    with owned(arguments.output, inputs=[arguments.benchmark_tsv]):
        checked = check_table(arguments.benchmark_tsv, arguments.backend)
        write_sealed(arguments.output, asdict(checked))
        log(f"{arguments.benchmark_tsv}: {checked.num_questions} questions can be asked")


if __name__ == "__main__":
    run_program(main)
