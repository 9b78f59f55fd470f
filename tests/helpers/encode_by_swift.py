"""Prints, as JSON, what `swift sft` would encode of users' files, and of the same files prepared, with what the check counts.

By hand: ENCODING_ENVIRONMENT='{}' PYTHONPATH=. .venvs/train/bin/python tests/helpers/encode_by_swift.py GRAFT_DIR FILE …
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.data.prepare_dataset import prepare
from scripts.data.settings import REFUSE_ALL, EncodingSettings
from scripts.data.sources import parse_source
from scripts.data.training_encoding import RowEncoder, training_template


def encoded(template: Any, path: str) -> list[dict[str, Any]]:
    """The rows as ms-swift's loader gives them and its template encodes them; pixels by their sha256."""
    from swift.dataset import load_dataset

    dataset, _ = load_dataset([path], strict=True, num_proc=1, load_from_cache_file=False)
    results = []
    for row in dataset:
        found = template.encode(row, return_length=True)
        pixels = found.get("pixel_values")
        results.append({
            "input_ids": found["input_ids"],
            "labels": found["labels"],
            "loss_scale": found.get("loss_scale"),
            "channel": found.get("channel"),
            "pixels": None if pixels is None else hashlib.sha256(pixels.numpy().tobytes()).hexdigest(),
        })  # fmt: skip
    return results


def tried(template: Any, path: str) -> list[dict[str, Any]] | str:
    """The same, or the error that ms-swift ends with."""
    try:
        return encoded(template, path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def prepared(path: str) -> Path:
    """The file after the preparation, beside it."""
    output_path = Path(path).with_suffix(".prepared.jsonl")
    prepare([parse_source(path)], 0, REFUSE_ALL, output_path, output_path.with_suffix(".pictures"))
    return output_path


def counted(encoder: RowEncoder, path: Path) -> list[list[Any]]:
    """What the check counts of the rows of a prepared file."""
    counts = [encoder.encoded(json.loads(line)) for line in path.read_text().splitlines()]
    return [[each.num_tokens, each.num_picture_tokens, each.num_trained_tokens, each.problem] for each in counts]


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def main() -> None:
    graft_dir, *paths = sys.argv[1:]
    settings = EncodingSettings(json.loads(os.environ["ENCODING_ENVIRONMENT"]), {})
    prepared_paths = {path: prepared(path) for path in paths}
    template = training_template(Path(graft_dir), settings)
    results: dict[str, dict[str, Any]] = {
        path: {"alone": tried(template, path), "ours": encoded(template, str(ours))}
        for path, ours in prepared_paths.items()
    }
    rows = [json.loads(line) for path in prepared_paths.values() for line in path.read_text().splitlines()]
    sizes = {image: size_of(image) for row in rows for image in row.get("images", [])}
    encoder = RowEncoder(training_template(Path(graft_dir), settings), sizes)
    for path, ours in prepared_paths.items():
        results[path]["counted"] = counted(encoder, ours)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
