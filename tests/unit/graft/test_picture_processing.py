"""Pictures are cut as the vision tower reads them, or the graft is not made."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_donor_files import write_tiny_donors
from helpers.tiny_graft import run_graft
from scripts.common.errors import UserError
from scripts.graft.donor_configs import VisionShape, read_vision_donor, vision_shape
from scripts.graft.picture_processing import check_picture_processing, processing_faults

SOUND: dict[str, Any] = {
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 3136,
    "max_pixels": 9999,
}


@pytest.fixture
def vision(root: Path) -> VisionShape:
    donor = read_vision_donor(root / "config/models/Qwen2.5-VL-7B-Instruct")
    return vision_shape(donor.child("vision_config"))


@pytest.mark.parametrize(
    "section",
    [
        SOUND,
        {},
        {**SOUND, "size": {"shortest_edge": 3136, "longest_edge": 9999}, "min_pixels": None},
        {"image_mean": [0.5, 0, 1], "image_std": [1, 0.5, 2]},
    ],
)
def test_published_forms_are_taken(vision: VisionShape, section: dict[str, Any]) -> None:
    assert list(processing_faults(section, vision)) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"patch_size": 16}, "patch_size is 16; expected 14, as in the vision_config of config.json"),
        ({"patch_size": "14"}, "patch_size is '14'; expected 14"),
        ({"patch_size": 14.0}, "patch_size is 14.0; expected 14"),
        ({"merge_size": None}, "merge_size is None; expected 2"),
        ({"temporal_patch_size": 1}, "temporal_patch_size is 1; expected 2"),
        ({"min_pixels": -1}, "min_pixels is -1; expected a positive whole number"),
        ({"max_pixels": "9999"}, "max_pixels is '9999'; expected a positive whole number"),
        ({"max_pixels": 100}, "min_pixels is 3136, above max_pixels 100"),
        ({"size": {"shortest_edge": 2, "longest_edge": 1}}, "size.shortest_edge is 2, above longest_edge 1"),
        ({"size": 448}, "size is 448; expected a section"),
        ({"image_mean": [0.5]}, "image_mean is [0.5]; expected 3 numbers"),
        ({"image_mean": 0.5}, "image_mean is 0.5; expected 3 numbers"),
        ({"image_std": [0.5, 0, 1]}, "image_std is [0.5, 0, 1]; expected 3 numbers, those of image_std above 0"),
    ],
)
def test_what_the_vision_tower_would_not_read_is_named(
    vision: VisionShape, changes: dict[str, Any], fault: str
) -> None:
    (found,) = processing_faults({**SOUND, **changes}, vision)
    assert found.startswith(fault)
    with pytest.raises(UserError, match=r"^donor: the picture processing .* does not go with the vision tower: "):
        check_picture_processing({**SOUND, **changes}, vision, Path("donor"))


def test_a_default_that_does_not_fit_the_tower_is_named(vision: VisionShape) -> None:
    other = VisionShape(**{**vars(vision), "patch_size": 16})
    (found,) = processing_faults({}, other)
    assert found.startswith("patch_size is 14 (the default, since it is not given); expected 16")


def test_no_graft_is_made_of_patches_of_another_size(root: Path, tmp_path: Path) -> None:
    donors = write_tiny_donors(tmp_path)
    path = donors[0] / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "patch_size": 16}))
    with pytest.raises(UserError, match="patch_size is 16; expected 14"):
        run_graft(root, donors, tmp_path / "graft")
    assert not list((tmp_path / "graft").glob("*.safetensors"))
