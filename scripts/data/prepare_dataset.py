"""Makes one training file of a stage from its sources: rows of messages and pictures, with absolute picture paths.

A source is a .jsonl of the user's (picture paths relative to it, or absolute) or a dataset that ms-swift 4.6.0 knows by
its hub id. `#NUM` behind either takes NUM of its rows, drawn by the seed, as ms-swift does; `ID:SUBSET` chooses a subset
and `hf::ID` or `ms::ID` the hub. The sources follow each other in the order in which they are given. Doing this ahead of
training means that it needs no network then, that every rank sees the same rows, and that the rows can be checked.

Pictures that a hub delivers inside the rows are written as files to the directory OUTPUT.pictures/, named by their sha256.
Rows that ms-swift drops (as where a picture is missing) are counted and printed; too many of them are an error.

By hand:
  .venvs/train/bin/python scripts data.prepare_dataset --sources '["resources/data/digits/train.jsonl#1000"]' --seed 0 \
    --output results/demo/data/stage1.jsonl
"""

import argparse
import difflib
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.common.errors import UserError, run_program
from scripts.common.files import open_atomically
from scripts.common.logger import log
from scripts.data.rows import with_all_image_tags

# LLaVA-1.5's instruction mix rightly loses its text-only rows, 6 % of 665,298; a loss above this is a defect.
MAX_LOST_FRACTION = 0.1
HUB_NAMES = {"ms": "ModelScope", "hf": "Hugging Face"}
NUM_SUGGESTIONS = 3
MAX_REASON_CHARACTERS = 300
SECONDS_BETWEEN_LINES = 10.0
Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """One source of the config: a file or the id of a dataset, and how many of its rows are wanted (None: all)."""

    text: str
    name: str
    num_wanted: int | None
    is_file: bool


def parse_source(text: str) -> Source:
    """Reads `NAME` or `NAME#NUM`; a NAME that is an existing file is a file, even with a # in it."""
    if Path(text).is_file():
        return Source(text, text, None, is_file=True)
    name, mark, number = text.rpartition("#")
    if not mark:
        name, number = text, ""
    elif not number.isdecimal() or int(number) == 0:
        raise UserError(
            f"source {text!r}: {number!r} found behind the #; expected the number of rows to take, as in ID#1000"
        )
    if not Path(name).is_file() and (name.endswith((".jsonl", ".json")) or name.startswith(("/", "./", "../"))):
        raise UserError(f"source {text!r}: file {name} not found; expected a .jsonl of training rows; check the path")
    return Source(text, name, int(number) if number else None, is_file=Path(name).is_file())


def chosen_rows(num_rows: int, num_wanted: int | None, seed: int) -> Sequence[int]:
    """Which rows `#NUM` takes: all of them as often as they go into NUM, and a random rest, as ms-swift does."""
    if num_wanted is None:
        return range(num_rows)
    num_repeats, num_rest = divmod(num_wanted, num_rows)
    rest = np.random.RandomState(seed).permutation(num_rows)[:num_rest]
    return [*list(range(num_rows)) * num_repeats, *rest.tolist()]


def read_local(source: Source, seed: int) -> Iterator[Row]:
    """The chosen rows of a .jsonl."""
    path = Path(source.name)
    lines = path.read_bytes().splitlines()
    if not lines:
        raise UserError(f"source {source.text!r}: empty; expected at least one row; check the file")
    for index in chosen_rows(len(lines), source.num_wanted, seed):
        row = parse_line(lines[index], f"{path}, row {index + 1}")
        yield standard_row(row["messages"], local_images(row, path.parent))


def parse_line(line: bytes, place: str) -> Row:
    """One row; raises UserError naming its place when it is none."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{place}: not valid JSON ({error}); write one JSON object per line") from None
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise UserError(
            f'{place}: no "messages" found; expected {{"messages": [{{"role": ..., "content": ...}}, ...], '
            '"images": [path, ...]}; convert the rows'
        )
    return row


def local_images(row: Row, directory: Path) -> list[str]:
    """Absolute paths of a row's pictures; whether they exist is for check_dataset.py to say of all rows at once."""
    images = row.get("images") or []
    images = images if isinstance(images, list) else [images]
    return [str((directory / image).absolute()) if isinstance(image, str) else image for image in images]


@dataclass
class Preprocessing:
    """What went into ms-swift's preprocessors and what came out."""

    num_rows_in: int = 0
    num_rows_out: int = 0
    had_picture_column: bool = False


def repair_registrations() -> None:
    """Mends two preprocessors of ms-swift 4.6.0 that lose every row of their dataset.

    Before they run, its column mapping has renamed the `image` that they read to `images`; each row then fails and is
    deleted with no more than a warning. LLaVA-Pretrain's would moreover return the picture without the messages.
    """
    from swift.dataset import DATASET_MAPPING, MessagesPreprocessor
    from swift.dataset.dataset import mllm

    class LLaVAPretrain(mllm.LLaVAPretrainPreprocessor):
        def preprocess(self, row: Row) -> Row | None:
            row = MessagesPreprocessor.preprocess(self, row)
            path = Path(self.media_dir, row["images"] or "")
            return row | {"images": str(path)} if path.is_file() else None

    class ShareGPT4V(mllm.ShareGPT4VPreprocessor):
        def preprocess(self, row: Row) -> Row | None:
            return super().preprocess(row | {"image": row["images"]})

    repaired = {mllm.LLaVAPretrainPreprocessor: LLaVAPretrain, mllm.ShareGPT4VPreprocessor: ShareGPT4V}
    for meta in DATASET_MAPPING.values():
        if type(meta.preprocess_func) in repaired:
            meta.preprocess_func = repaired[type(meta.preprocess_func)]()


@contextmanager
def preprocessing_counted() -> Iterator[Preprocessing]:
    """Counts rows before and after ms-swift's preprocessors, which drop what they cannot use."""
    from swift.dataset import RowPreprocessor

    original, counts = RowPreprocessor.__call__, Preprocessing()

    def counted(self: Any, dataset: Any, **options: Any) -> Any:
        result = original(self, dataset, **options)
        counts.num_rows_in += len(dataset)
        counts.num_rows_out += len(result)
        counts.had_picture_column |= not {"image", "images"}.isdisjoint(dataset.column_names)
        return result

    RowPreprocessor.__call__ = counted
    try:
        yield counts
    finally:
        RowPreprocessor.__call__ = original


def check_registered(source: Source) -> None:
    """Raises UserError unless ms-swift knows the id on the hub that it would ask."""
    from swift.dataset import DATASET_MAPPING, DatasetSyntax
    from swift.utils import use_hf_hub

    if Path(source.name).is_dir():
        raise UserError(
            f"source {source.text!r}: a directory found; expected a .jsonl of training rows or the id of a dataset; "
            "name a .jsonl inside it"
        )
    syntax = DatasetSyntax.parse(source.name)
    hub = "hf" if (use_hf_hub() if syntax.use_hf is None else syntax.use_hf) else "ms"
    ids = {
        "ms": {meta.ms_dataset_id for meta in DATASET_MAPPING.values() if meta.ms_dataset_id},
        "hf": {meta.hf_dataset_id for meta in DATASET_MAPPING.values() if meta.hf_dataset_id},
    }
    if syntax.dataset in ids[hub]:
        return
    other = "ms" if hub == "hf" else "hf"
    if syntax.dataset in ids[other]:
        remedy = f"write {other}::{source.text.rpartition('::')[2]}"
    else:
        lower = {dataset_id.lower(): dataset_id for dataset_id in ids[hub]}
        nearest = difflib.get_close_matches(syntax.dataset.lower(), lower, n=NUM_SUGGESTIONS, cutoff=0.0)
        remedy = f"the nearest known are {', '.join(lower[name] for name in nearest)}; or give a .jsonl of your own"
    raise UserError(
        f"source {source.text!r}: no file of that name, and {syntax.dataset} is not registered in ms-swift for "
        f"{HUB_NAMES[hub]}; expected a .jsonl or a registered dataset; {remedy}"
    )


def read_registered(source: Source, seed: int, pictures_dir: Path) -> Iterator[Row]:
    """The chosen rows of a dataset that ms-swift knows, their pictures as files."""
    from swift.dataset import load_dataset

    check_registered(source)
    repair_registrations()
    np.random.seed(seed)  # some preprocessors draw one of several questions
    log(f"{source.text}: loading through ms-swift")
    with preprocessing_counted() as counts:
        try:
            dataset, _ = load_dataset(source.name, seed=seed, num_proc=1, load_from_cache_file=False)
        # The hubs' libraries raise errors of many families; a wrong subset is a ValueError.
        except Exception as error:
            if counts.num_rows_in > 0 and counts.num_rows_out == 0:  # on which ms-swift divides by zero
                raise too_many_lost(source, counts.num_rows_in, counts.num_rows_in) from error
            raise UserError(load_failure(source, error)) from error

    indices = chosen_rows(len(dataset), source.num_wanted, seed)
    num_taken, num_with_pictures, last_line_s = 0, 0, time.monotonic()
    for number, row in enumerate(dataset.select(indices), start=1):
        if time.monotonic() - last_line_s > SECONDS_BETWEEN_LINES:
            last_line_s = time.monotonic()
            log(f"{source.text}: {number} of {len(indices)} rows")
        if not row.get("messages"):
            continue
        images = [picture_path(image, source, pictures_dir) for image in row.get("images") or []]
        num_taken += 1
        num_with_pictures += bool(images)
        yield standard_row(row["messages"], images)

    num_lost = counts.num_rows_in - counts.num_rows_out + len(indices) - num_taken
    log(f"{source.text}: {num_taken} rows taken; {num_lost} of {counts.num_rows_in} lost in ms-swift's preprocessing")
    if num_taken == 0 or num_lost > MAX_LOST_FRACTION * counts.num_rows_in:
        raise too_many_lost(source, num_lost, counts.num_rows_in)
    if counts.had_picture_column and num_with_pictures == 0:
        raise UserError(
            f"source {source.text!r}: every picture was lost in ms-swift's preprocessing, which returns rows without "
            "them; expected rows with pictures; convert this dataset to a .jsonl of your own"
        )


def load_failure(source: Source, error: Exception) -> str:
    """The message for a dataset that ms-swift could not load."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_CHARACTERS]
    return (
        f"source {source.text!r}: could not be loaded through ms-swift ({reason}); expected a reachable hub that has this "
        "dataset and subset; run the same command again where there is internet (what was fetched is kept in the hub's "
        "cache), or give a .jsonl of your own"
    )


def too_many_lost(source: Source, num_lost: int, num_rows: int) -> UserError:
    """The error for a dataset of which too much was lost to be chance."""
    return UserError(
        f"source {source.text!r}: ms-swift lost {num_lost} of {num_rows} rows; expected at most {MAX_LOST_FRACTION:.0%}; "
        "see its warnings above (pictures that were not fetched, or a preprocessor that does not fit the data), and "
        "fetch the dataset again or give a .jsonl of your own"
    )


def picture_path(image: Any, source: Source, pictures_dir: Path) -> str:
    """The absolute path of a picture that a hub delivers as {bytes, path}; bytes become a file."""
    if image.get("bytes"):
        return write_picture(image["bytes"], pictures_dir)
    if "://" in image["path"]:
        raise UserError(
            f"source {source.text!r}: its pictures are addresses such as {image['path']}; expected files or bytes, since "
            "training nodes have no network and a dead address loses its row; download them and give a .jsonl of your own"
        )
    return str(Path(image["path"]).absolute())


def write_picture(content: bytes, pictures_dir: Path) -> str:
    """Writes a picture under its sha256, once; whether it can be decoded is for check_dataset.py to say."""
    digest = hashlib.sha256(content).hexdigest()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            suffix = (picture.format or "bin").lower()
    except OSError:
        suffix = "bin"
    path = pictures_dir / digest[:2] / f"{digest}.{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        temporary.rename(path)
    return str(path.absolute())


def standard_row(messages: Sequence[Row], images: Sequence[Any]) -> Row:
    """A row as training reads it; one without pictures has no `images`."""
    row: Row = {"messages": with_all_image_tags(messages, len(images)) if messages else []}
    return row | {"images": list(images)} if images else row


def read_source(source: Source, seed: int, pictures_dir: Path) -> Iterator[Row]:
    """All rows that are taken from a source."""
    return read_local(source, seed) if source.is_file else read_registered(source, seed, pictures_dir)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sources", required=True, type=json.loads, help="the stage's `datasets`, as a JSON list")
    parser.add_argument("--seed", required=True, type=int, help="draws the rows of sources with #NUM")
    parser.add_argument("--output", required=True, type=Path, help="the .jsonl to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    sources = [parse_source(text) for text in arguments.sources]
    pictures_dir = arguments.output.with_suffix(".pictures")
    num_rows = 0
    with open_atomically(arguments.output) as file:
        for source in sources:
            first = num_rows + 1
            for row in read_source(source, arguments.seed, pictures_dir):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                num_rows += 1
            log(f"{arguments.output}: rows {first} to {num_rows} are from {source.text}")


if __name__ == "__main__":
    run_program(main)
