"""Reads the pictures of a training set in full, as training will."""

import io
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from scripts.common.input_files import NOT_FOUND, file_fault
from scripts.data.occasional_log import OccasionalLog
from scripts.donors.library_errors import in_one_line

# transformers' picture processor refuses a larger ratio (models/qwen2_vl/image_processing_qwen2_vl.py: smart_resize).
MAX_ASPECT_RATIO = 200
NUM_PICTURES_PER_TASK = 64


@dataclass(frozen=True)
class Picture:
    """A picture that was read in full, or why it could not be."""

    path: str
    width_px: int = 0
    height_px: int = 0
    problem: str = ""
    detail: str = ""


def whole_size_px(source: str | bytes) -> tuple[int, int]:
    """Width and height of a picture, a path or its bytes, decoded in full; raises whatever its decoder meets in it."""

    def opened() -> Image.Image:
        return Image.open(source if isinstance(source, str) else io.BytesIO(source))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with opened() as picture:
            picture.verify()
        with opened() as picture:  # verify() leaves the picture unusable
            picture.load()
            picture.convert("RGB")
            return picture.size


def read_picture(path: str) -> Picture:
    """Decodes one picture in full."""
    if fault := file_fault(path):
        return Picture(path, problem="picture not found", detail=path if fault == NOT_FOUND else f"{path} ({fault})")
    try:
        width_px, height_px = whole_size_px(path)
    # Decoders raise whatever they meet in the file: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        reason = in_one_line(error)
        return Picture(path, problem="picture unreadable", detail=f"{path} ({reason})")
    if max(width_px, height_px) > MAX_ASPECT_RATIO * min(width_px, height_px):
        detail = f"{path} ({width_px} x {height_px}: longer than {MAX_ASPECT_RATIO} times its width)"
        return Picture(path, problem="picture unreadable", detail=detail)
    return Picture(path, width_px, height_px)


def read_pictures(paths: Sequence[str], num_workers: int) -> Iterator[Picture]:
    """Reads all pictures, in order, and logs its progress."""
    progress = OccasionalLog()
    with picture_reader(len(paths), num_workers) as read:
        for number, picture in enumerate(read(paths), start=1):
            yield picture
            progress(f"pictures: {number} of {len(paths)} read")


@contextmanager
def picture_reader(num_pictures: int, num_workers: int) -> Iterator[Any]:
    """A function that maps paths to pictures: in this process for a few, in several for many."""
    if num_workers == 1 or num_pictures <= NUM_PICTURES_PER_TASK:
        yield lambda paths: map(read_picture, paths)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield lambda paths: pool.map(read_picture, paths, chunksize=NUM_PICTURES_PER_TASK)
