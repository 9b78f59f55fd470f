"""Whether the vision donor's picture processing cuts pictures as its vision tower reads them.

Patches of another size would not fail at once: the tower would be trained on rubbish, or a server would end hours later.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.json_text import json_value
from scripts.graft.donor_configs import VisionShape, is_integer, is_number, read_vision_donor, vision_shape

# What transformers' Qwen2VLImageProcessor takes where the file says nothing (models/qwen2_vl/image_processing_qwen2_vl.py).
_DEFAULTS = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}

PROCESSING_NAMES = frozenset({"preprocessor_config.json", "video_preprocessor_config.json"})

_LIMITS = ("min_pixels", "max_pixels")
_EDGES = ("shortest_edge", "longest_edge")


def _limit_faults(section: Mapping[str, Any], keys: tuple[str, str], prefix: str = "") -> Iterator[str]:
    """The smallest and the largest number of pixels, each of which may be absent."""
    given = [(key, section[key]) for key in keys if section.get(key) is not None]
    for key, value in given:
        if not is_integer(value) or value < 1:
            yield f"{prefix}{key} is {value!r}; expected a positive whole number of pixels"
            return
    if len(given) == 2 and given[0][1] > given[1][1]:
        yield f"{prefix}{keys[0]} is {given[0][1]}, above {keys[1]} {given[1][1]}; expected it below"


def processing_faults(section: Mapping[str, Any], vision: VisionShape) -> Iterator[str]:
    """What does not fit the vision tower, or makes no sense, one text each."""
    expected_of = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
    }
    for key, expected in expected_of.items():
        if (found := section.get(key, _DEFAULTS[key])) != expected or not is_integer(found):
            origin = "" if key in section else " (the default, since it is not given)"
            yield f"{key} is {found!r}{origin}; expected {expected}, as in the vision_config of config.json"
    yield from _limit_faults(section, _LIMITS)
    if isinstance(size := section.get("size"), Mapping):
        yield from _limit_faults(size, _EDGES, "size.")
    elif size is not None:
        yield f"size is {size!r}; expected a section with shortest_edge and longest_edge"
    for key in ("image_mean", "image_std"):
        values = section.get(key)
        if values is None:
            continue
        is_list = isinstance(values, list) and len(values) == vision.in_channels and all(map(is_number, values))
        if not is_list or (key == "image_std" and any(value <= 0 for value in values)):
            yield f"{key} is {values!r}; expected {vision.in_channels} numbers, those of image_std above 0"


def check_picture_processing(section: Mapping[str, Any], vision: VisionShape, path: Path) -> None:
    """Raises UserError where the picture or video processing in `path`, or processor_config.json, does not fit the tower."""
    for fault in processing_faults(section, vision):
        raise UserError(
            f"{path}: the picture processing (here, or in processor_config.json) does not go with the vision tower: {fault}; "
            "fetch this donor's files again"
        )


def check_processing_files(files: Mapping[str, bytes], vl_dir: Path) -> None:
    """The same of every file of a graft that says how pictures are processed."""
    vision = vision_shape(read_vision_donor(vl_dir).child("vision_config"))
    for name in sorted(PROCESSING_NAMES & files.keys()):
        check_picture_processing(json_value(files[name]), vision, vl_dir / name)
