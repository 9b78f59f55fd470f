"""Checks your own table of questions before anything is trained: a row that cannot be asked would be found only hours later.

By hand: .venv/bin/python scripts questions.check_table --config FILE --benchmark NAME
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import md5_of_file
from scripts.common.input_files import require_file
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import write_sealed
from scripts.common.whole_numbers import seed_number
from scripts.questions.controls import with_shuffled_pictures
from scripts.questions.own_tables import read_own_table


@dataclass(frozen=True)
class CheckedTable:
    """The record of a table that can be asked."""

    md5: str
    num_questions: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--benchmark-tsv", type=Path, required=True)
    parser.add_argument("--backend", choices=("vlmevalkit", "native"), required=True)
    parser.add_argument("--source", type=Path, help="your own file, from which the table was made")
    parser.add_argument(
        "--shuffled-by-seed", type=seed_number, help="of the control with exchanged pictures, if it is asked"
    )
    parser.add_argument("--output", type=Path, required=True, help="the record to write if all is well")
    arguments = parser.parse_args()
    with owned(arguments.output, inputs=[arguments.benchmark_tsv]):
        require_file(arguments.benchmark_tsv, "the table of this run", "move away what is there, and make it again")
        try:
            table = read_own_table(arguments.benchmark_tsv, arguments.backend)
            if arguments.shuffled_by_seed is not None:
                with_shuffled_pictures(table, arguments.benchmark_tsv, arguments.shuffled_by_seed)
        except UserError as error:
            raise UserError(
                str(error).replace(str(arguments.benchmark_tsv), str(arguments.source or arguments.benchmark_tsv))
            ) from None
        checked = CheckedTable(md5_of_file(arguments.benchmark_tsv), len(table))
        write_sealed(arguments.output, asdict(checked))
        log(f"{arguments.benchmark_tsv}: {checked.num_questions} questions can be asked")


if __name__ == "__main__":
    run_program(main)
