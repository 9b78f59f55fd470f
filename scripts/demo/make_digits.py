"""Makes the demo's data: real handwritten digits as pictures with four-choice questions, and requests to name them.

scikit-learn carries 1797 scanned digits (UCI "Optical Recognition of Handwritten Digits", 8 x 8 pixels, 17 grey levels),
so that no download is needed. They are split by picture into train, dev and test with a fixed seed; each training picture
is written several times, all but the first shifted, turned and scaled a little. Every second copy for training is only to be
named, as captions align a vision tower elsewhere: from questions alone some aligners confused several digits for good
(docs/log.md). Written are

  images/*.png               the pictures; larger than 100 pixels, since VLMEvalKit enlarges smaller ones
                             (VLMEVAL_MIN_IMAGE_EDGE): MAX_PIXELS brings them to the size the model sees
  {train,dev,test}.jsonl     ms-swift's messages/images rows, picture paths relative to the directory
  {dev,test}.tsv             the same questions in VLMEvalKit's multiple-choice form
  pictures.tsv               every picture with its split, scan, copy and digit

By hand: .venv/bin/python scripts demo.make_digits --config config/demo.yaml
"""

import argparse
import base64
import csv
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from scripts.common.errors import UserError, run_program
from scripts.common.logger import log
from scripts.common.settings import json_settings
from scripts.demo.prompt_texts import (
    LETTERS,
    NAMING_REQUEST,
    QUESTION,
    discipline_of,
    draw_options,
    question_text,
    subject_of,
)
from scripts.demo.settings import DigitsSettings
from scripts.demo.whole_directory import whole_directory

# Everything that this program writes into its output directory: it replaces these and nothing else.
OUTPUT_NAMES = {"images", "train.jsonl", "dev.jsonl", "test.jsonl", "dev.tsv", "test.tsv", "pictures.tsv"}

NUM_GREY_LEVELS = 16  # load_digits counts the ink of a cell from 0 to 16


@dataclass(frozen=True)
class Picture:
    """One picture file: which scan it shows, which copy of it, and what a person reads in it."""

    path: str
    split: str
    scan: int
    copy: int
    digit: int


def split_scans(num_scans: int, num_dev: int, num_test: int, seed: int) -> dict[str, list[int]]:
    """Disjoint splits by scan; the same for the same seed whatever else is set."""
    if num_dev + num_test >= num_scans:
        raise UserError(
            f"demo.digits.num_dev + num_test: {num_dev + num_test} found; there are {num_scans} scans in all and "
            "some must be left for training; lower one of them"
        )
    order = list(range(num_scans))
    random.Random(seed).shuffle(order)
    return {
        "train": order[num_dev + num_test :],
        "dev": order[num_test : num_test + num_dev],
        "test": order[:num_test],
    }


def scan_to_picture(scan: np.ndarray, size_px: int) -> Image.Image:
    """An 8 x 8 scan, enlarged: white ink on black."""
    grey = (scan / NUM_GREY_LEVELS * 255).round().astype(np.uint8)
    return Image.fromarray(grey).resize((size_px, size_px), Image.Resampling.BICUBIC)


def augmented(picture: Image.Image, settings: DigitsSettings, rng: random.Random) -> Image.Image:
    """The picture turned, scaled and shifted a little about its centre."""
    angle = math.radians(rng.uniform(-1, 1) * settings.max_rotation_degrees)
    scale = 1 + rng.uniform(-1, 1) * settings.max_scale_change
    size = picture.width
    shift_x, shift_y = (rng.uniform(-1, 1) * settings.max_shift * size for _ in range(2))
    cos, sin, middle = math.cos(angle) * scale, math.sin(angle) * scale, size / 2
    # Pillow asks where each pixel of the result comes from: x' = a x + b y + c, y' = d x + e y + f.
    coefficients = (
        cos, -sin, middle - cos * middle + sin * middle + shift_x,
        sin, cos, middle - sin * middle - cos * middle + shift_y,
    )  # fmt: skip
    return picture.transform(picture.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)


def write_pictures(directory: Path, splits: dict[str, list[int]], settings: DigitsSettings) -> list[Picture]:
    """Writes images/*.png and returns what was written, in order."""
    digits = load_digits()
    (directory / "images").mkdir(parents=True)
    pictures = []
    for split, scans in splits.items():
        rng = random.Random(f"{settings.seed}:{split}:pictures")
        for scan in scans:
            original = scan_to_picture(digits.images[scan], settings.size_px)
            for copy in range(settings.num_copies if split == "train" else 1):
                image = augmented(original, settings, rng) if copy else original
                path = f"images/{split}-{scan:04d}-{copy}.png"
                image.convert("RGB").save(directory / path, compress_level=1)
                pictures.append(Picture(path, split, scan, copy, int(digits.target[scan])))
        log(f"{split}: {len(scans)} scans written")
    return pictures


def training_row(picture: Picture, options: list[str]) -> dict[str, Any]:
    """A row in the form that ms-swift reads; without options the digit is to be named."""
    request = question_text(options) if options else NAMING_REQUEST
    answer = LETTERS[options.index(str(picture.digit))] if options else str(picture.digit)
    return {
        "messages": [
            {"role": "user", "content": "<image>" + request},
            {"role": "assistant", "content": answer},
        ],
        "images": [picture.path],
    }


def benchmark_row(index: int, picture: Picture, options: list[str], directory: Path) -> dict[str, Any]:
    """A row in the form that VLMEvalKit reads."""
    return {
        "index": index,
        "image": base64.b64encode((directory / picture.path).read_bytes()).decode(),
        "question": QUESTION,
        **dict(zip(LETTERS, options, strict=True)),
        "answer": LETTERS[options.index(str(picture.digit))],
        "category": subject_of(picture.digit),
        "l2-category": discipline_of(picture.digit),
        "split": picture.split,
    }


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Tab-separated, header first."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_split(directory: Path, split: str, pictures: list[Picture], seed: int) -> None:
    """Draws the options of each picture's question and writes SPLIT.jsonl and, unless it is for training, SPLIT.tsv."""
    rng = random.Random(f"{seed}:{split}:options")
    with_options = [(picture, draw_options(picture.digit, rng)) for picture in pictures]
    if split == "train":
        rng.shuffle(with_options)
        with_options = [(picture, options if picture.copy % 2 else []) for picture, options in with_options]
    else:
        rows = [
            benchmark_row(index, picture, options, directory) for index, (picture, options) in enumerate(with_options)
        ]
        write_tsv(directory / f"{split}.tsv", rows)
    lines = [json.dumps(training_row(picture, options)) + "\n" for picture, options in with_options]
    (directory / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def make_digits(settings: DigitsSettings, directory: Path) -> None:
    """Writes the whole data set into `directory`."""
    num_scans = len(load_digits().target)
    splits = split_scans(num_scans, settings.num_dev, settings.num_test, settings.seed)
    pictures = write_pictures(directory, splits, settings)
    for split in splits:
        write_split(directory, split, [p for p in pictures if p.split == split], settings.seed)
    write_tsv(directory / "pictures.tsv", [vars(picture) for picture in pictures])


def main() -> None:
    """Reads the arguments, makes the data beside its place and puts it there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--settings",
        required=True,
        type=json_settings(DigitsSettings, "demo.digits"),
        help="the config's `demo.digits`, as JSON",
    )
    parser.add_argument("--output-dir", required=True, type=Path)
    arguments = parser.parse_args()
    with whole_directory(arguments.output_dir, OUTPUT_NAMES) as directory:
        make_digits(arguments.settings, directory)


if __name__ == "__main__":
    run_program(main)
