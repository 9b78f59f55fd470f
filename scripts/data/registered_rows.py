"""The rows of a dataset that ms-swift 4.6.0 knows, loaded by ms-swift itself.

Rows that ms-swift drops (as where a picture is missing) are counted and logged; too many of them are an error.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.errors import UserError
from scripts.common.logger import log
from scripts.data.addresses import is_address
from scripts.data.local_rows import TakenRow
from scripts.data.occasional_log import OccasionalLog
from scripts.data.rows import standard_row
from scripts.data.sources import Source, chosen_rows
from scripts.data.swift_form import KEPT_KEYS
from scripts.donors.library_errors import in_one_line

# A loss above this is a defect of the data or of its preprocessor.
MAX_LOST_FRACTION = 0.1
HUB_NAMES = {"ms": "ModelScope", "hf": "Hugging Face"}
NUM_SUGGESTIONS = 3
MAX_REASON_CHARACTERS = 300


@dataclass
class Preprocessing:
    """What went into ms-swift's preprocessors and what came out."""

    num_rows_in: int = 0
    num_rows_out: int = 0
    had_picture_column: bool = False


def repair_registrations() -> None:
    """Replaces three preprocessors of ms-swift 4.6.0 that lose rows of their dataset.

    Two read the column `image`, which ms-swift has renamed to `images` by then. So each row fails, and ms-swift deletes it
    with only a warning. LLaVA-Pretrain's would also return the picture without the messages. That of LLaVA-1.5's mix drops
    the rows of text alone, 40,688 of 665,298.
    """
    from swift.dataset import DATASET_MAPPING, MessagesPreprocessor
    from swift.dataset.dataset import mllm

    class LLaVAPretrain(mllm.LLaVAPretrainPreprocessor):
        def preprocess(self, row: dict[str, Any]) -> dict[str, Any] | None:
            row = MessagesPreprocessor.preprocess(self, row)
            path = Path(self.media_dir, row["images"] or "")
            return row | {"images": str(path)} if path.is_file() else None

    class ShareGPT4V(mllm.ShareGPT4VPreprocessor):
        def preprocess(self, row: dict[str, Any]) -> dict[str, Any] | None:
            return super().preprocess(row | {"image": row["images"]})

    class LLaVAData(mllm.LLaVADataPreprocessor):
        def preprocess(self, row: dict[str, Any]) -> dict[str, Any] | None:
            return super().preprocess(row) if row["images"] else MessagesPreprocessor.preprocess(self, row)

    repaired = {
        mllm.LLaVAPretrainPreprocessor: LLaVAPretrain,
        mllm.ShareGPT4VPreprocessor: ShareGPT4V,
        mllm.LLaVADataPreprocessor: LLaVAData,
    }
    for meta in DATASET_MAPPING.values():
        if type(meta.preprocess_func) in repaired:
            meta.preprocess_func = repaired[type(meta.preprocess_func)]()


@contextmanager
def preprocessing_counted() -> Iterator[Preprocessing]:
    """Counts rows before and after ms-swift's preprocessors, which drop rows that they cannot use."""
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
    """Raises UserError unless ms-swift knows the id on the hub that it would load it from."""
    from swift.dataset import DATASET_MAPPING, DatasetSyntax
    from swift.utils import use_hf_hub

    if Path(source.name).is_dir():
        raise UserError(
            f"source {source.text!r}: a directory found; expected a file of training rows or the id of a dataset; "
            "name a file inside it"
        )
    try:
        syntax = DatasetSyntax.parse(source.name)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"source {source.text!r}: no id of a dataset ({error}); expected OWNER/NAME, perhaps hf:: before it"
        ) from None
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
        remedy = f"the nearest known are {', '.join(lower[name] for name in nearest)}; or give a file of your own"
    raise UserError(
        f"source {source.text!r}: no file of that name, and {syntax.dataset} is not registered in ms-swift for "
        f"{HUB_NAMES[hub]}; expected a file or a registered dataset; {remedy}"
    )


def read_registered(source: Source, seed: int) -> Iterator[TakenRow]:
    """The chosen rows of a dataset that ms-swift knows, their pictures as paths or bytes."""
    check_registered(source)
    repair_registrations()
    dataset, counts = load_through_swift(source, seed)
    indices = chosen_rows(len(dataset), source.num_wanted, seed, f"source {source.text!r}")
    num_taken, num_with_pictures, progress = 0, 0, OccasionalLog()
    for index, row in zip(indices, dataset.select(indices), strict=True):
        progress(f"{source.text}: {num_taken} of {len(indices)} rows")
        if not row.get("messages"):
            continue
        images = [given_picture(image) for image in row.get("images") or []]
        num_taken += 1
        num_with_pictures += bool(images)
        others = {key: row[key] for key in KEPT_KEYS if row.get(key)}
        yield TakenRow(index + 1, standard_row(row["messages"], images, others))

    num_lost = counts.num_rows_in - counts.num_rows_out + len(indices) - num_taken
    log(f"{source.text}: {num_taken} rows taken; {num_lost} of {counts.num_rows_in} lost in ms-swift's preprocessing")
    if num_taken == 0 or num_lost > MAX_LOST_FRACTION * counts.num_rows_in:
        raise too_many_lost(source, num_lost, counts.num_rows_in)
    if counts.had_picture_column and num_with_pictures == 0:
        raise UserError(
            f"source {source.text!r}: every picture was lost in ms-swift's preprocessing, which returns rows without "
            "them; expected rows with pictures; convert this dataset to a file of your own"
        )


def load_through_swift(source: Source, seed: int) -> tuple[Any, Preprocessing]:
    """The whole dataset as ms-swift's preprocessors give it, and how many rows they took and gave."""
    from swift.dataset import load_dataset

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
    return dataset, counts


def load_failure(source: Source, error: Exception) -> str:
    """The message for a dataset that ms-swift could not load."""
    reason = in_one_line(error, MAX_REASON_CHARACTERS)
    return (
        f"source {source.text!r}: could not be loaded through ms-swift ({reason}); expected a reachable hub that has this "
        "dataset and subset; run the same command again where there is internet (what was fetched is kept in the hub's "
        "cache), or give a file of your own"
    )


def too_many_lost(source: Source, num_lost: int, num_rows: int) -> UserError:
    """The error for a dataset that lost too many rows."""
    return UserError(
        f"source {source.text!r}: ms-swift lost {num_lost} of {num_rows} rows; expected at most {MAX_LOST_FRACTION:.0%}; "
        "see its warnings above (pictures that were not fetched, or a preprocessor that does not fit the data), and "
        "fetch the dataset again or give a file of your own"
    )


def given_picture(image: Any) -> Any:
    """A picture that a hub delivers as {bytes, path}: its bytes, its address, or its absolute path."""
    if image.get("bytes"):
        return {"bytes": image["bytes"]}
    if is_address(image["path"]):
        return image["path"]
    return str(Path(image["path"]).absolute())
