"""Makes the score table of a benchmark from per-question records: a row per model, split and group of questions.

Beside it stands the comparison of each two models on the same questions (McNemar's test). It is far sharper than to see
whether two intervals overlap, since it counts only the questions on which the two differ.

Nothing is taken from EvalScope's own sums. Models stand beside each other only if they were asked the same questions in
the same way: other indices, texts, answers, pictures, settings or versions refuse the table.

By hand: .venv/bin/python scripts evaluate.make_table --config config/demo.yaml --benchmark digits
"""

import argparse
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import write_text_atomically
from scripts.common.ownership import owned
from scripts.evaluate.comparisons import comparison_text
from scripts.evaluate.model_names import paths_by_model
from scripts.evaluate.provenance import (
    check_not_exchanged,
    check_records_unedited,
    check_same_way,
    read_provenance,
    write_table_provenance,
)
from scripts.evaluate.records import read_records
from scripts.evaluate.same_questions import check_same_questions
from scripts.evaluate.scores import overall_table, scores_of, scores_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=Path, nargs="+", required=True, help="MODEL.jsonl, in any order")
    parser.add_argument("--provenances", type=Path, nargs="+", required=True, help="MODEL.json for each")
    parser.add_argument("--output-csv", type=Path, required=True)
    parser.add_argument("--output-json", type=Path, required=True)
    parser.add_argument("--output-comparison", type=Path, required=True)
    arguments = parser.parse_args()

    inputs = [*arguments.records, *arguments.provenances]
    for path in (arguments.output_csv, arguments.output_json, arguments.output_comparison):
        if path.is_dir():
            raise UserError(f"{path}: is a directory; expected nothing or an earlier table; see what is there")
    with owned(arguments.output_csv, arguments.output_json, arguments.output_comparison, inputs=inputs):
        records_paths = paths_by_model(arguments.records, "--records")
        provenance_paths = paths_by_model(arguments.provenances, "--provenances")
        if records_paths.keys() != provenance_paths.keys():
            alone = sorted(records_paths.keys() ^ provenance_paths.keys())
            raise UserError(
                f"--records, --provenances: {', '.join(alone)} is in only one of the two; expected both of each"
            )
        records = {model: read_records(path) for model, path in records_paths.items()}
        provenances = {model: read_provenance(provenance_paths[model]) for model in records}
        check_not_exchanged(provenances, provenance_paths)
        check_records_unedited(records_paths, provenances)
        check_same_way(provenances, provenance_paths)
        check_same_questions(records, records_paths)
        scores = [score for model in records for score in scores_of(model, records[model])]
        write_text_atomically(arguments.output_comparison, comparison_text(records))
        write_text_atomically(arguments.output_csv, scores_text(scores))
        write_table_provenance(arguments.output_json, provenances, arguments.output_csv, arguments.output_comparison)
        print(overall_table(scores))


if __name__ == "__main__":
    run_program(main)
