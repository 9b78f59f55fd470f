"""Prints the seconds that ms-swift alone takes to encode a row, with its pixels; for benchmarks/rows.py.

By hand: PYTHONPATH=. .venvs/train/bin/python benchmarks/encoding_alone.py MODEL_DIR ROWS.jsonl '{"environment": {}, "flags": {}}'
"""

import json
import sys
import time
from pathlib import Path

from scripts.data.settings import EncodingSettings
from scripts.data.training_encoding import training_template


def main() -> None:
    model_dir, rows_path, encoding = sys.argv[1:]
    template = training_template(Path(model_dir), EncodingSettings(**json.loads(encoding)))
    rows = [json.loads(line) for line in Path(rows_path).read_text(encoding="utf-8").splitlines()]
    started_s = time.monotonic()
    for row in rows:
        template.encode(row, return_length=True)
    print((time.monotonic() - started_s) / len(rows))


if __name__ == "__main__":
    main()
