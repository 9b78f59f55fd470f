"""Stands in for the interpreter of every environment: writes down what it was given, and makes empty outputs.

So that Snakemake, its rules and a real shell can be tested with any configuration, without what the programs need.
"""

import itertools
import json
import os
import sys
from pathlib import Path

RECORDS_VARIABLE = "VLGRAFT_TEST_RECORDS"

# Options that name outputs of other programs, and inputs of these.
INPUTS = {
    "evaluate.make_table": ("--records", "--provenances"),
    "report.make_disagreements": ("--records", "--provenances"),
    "data.check_dataset": ("--origins",),
}

# What a program makes in the directory that it is given.
IN_DIRS = {
    "demo.make_digits": [f"{split}.{kind}" for split in ("train", "dev", "test") for kind in ("jsonl", "tsv")],
    "graft.graft": ["model.safetensors.index.json", "ledger.tsv"],
    "train.train": ["checkpoint/model.safetensors.index.json", "metrics.json"],
    "graft.write_model_files": ["config.json"],
    "report.make_report": ["stage1.svg", "stage2.svg"],
}
DIR_OPTIONS = ("--output-dir", "--curves-dir")
FILE_OPTIONS = (
    "--output", "--manifest", "--refit", "--report", "--records", "--provenance", "--output-csv", "--output-json",
    "--output-comparison", "--checksum", "--record", "--marker", "--origins", "--kept",
)  # fmt: skip


def main() -> None:
    words = sys.argv[1:]
    with open(os.environ[RECORDS_VARIABLE], "a", encoding="utf-8") as records:
        records.write(json.dumps(words) + "\n")
    program, options = words[1], dict(itertools.pairwise(words))
    outputs = [option for option in FILE_OPTIONS if option not in INPUTS.get(program, ())]
    made = [Path(options[option]) for option in outputs if option in options]
    made += [
        Path(options[option], name) for option in DIR_OPTIONS if option in options for name in IN_DIRS.get(program, ())
    ]
    if program == "upload.make_model_card":
        results = json.loads(options["--configuration"])["results"]
        made.append(Path(results, options["--stage"], "checkpoint/README.md"))
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


if __name__ == "__main__":
    main()
