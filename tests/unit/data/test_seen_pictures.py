"""A picture is what a person sees: upright, on white, with all of its greys."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.data.seen_pictures import FIRST_FRAME, ON_WHITE, SCALED, TURNED, may_change, seen


def reopened(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Image.open(io.BytesIO(content.getvalue()))


def lying(orientation: int) -> Image.Image:
    """Red above green as a person sees it, as a camera stores it."""
    upright = Image.new("RGB", (16, 32), "green")
    upright.paste("red", (0, 0, 16, 16))
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    stored = upright if back[orientation] is None else upright.transpose(back[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return reopened(stored, exif=exif)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_stands_upright(orientation: int) -> None:
    found = seen(lying(orientation))
    assert found.image.size == (16, 32)
    assert found.image.getpixel((8, 4)) == (255, 0, 0)
    assert found.changes == ((TURNED,) if orientation != 1 else ())


def palette_with_a_clear_colour() -> Image.Image:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    return reopened(image, transparency=0)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (4, 4), (0, 0, 0, 0)),
        Image.new("LA", (4, 4), (0, 0)),
        palette_with_a_clear_colour(),
    ],
)
def test_what_is_transparent_is_white(image: Image.Image) -> None:
    found = seen(image)
    assert found.image.getpixel((0, 0)) == (255, 255, 255)
    assert found.changes == (ON_WHITE,)


def test_half_transparent_ink_is_grey_and_an_opaque_picture_is_as_before() -> None:
    assert seen(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).image.getpixel((0, 0)) == (127, 127, 127)
    opaque = seen(Image.new("RGBA", (1, 1), (9, 8, 7, 255)))
    assert (opaque.image.getpixel((0, 0)), opaque.changes) == ((9, 8, 7), ())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 32768, 65535]], dtype=np.uint16), [0, 128, 255]),
        (np.array([[0, 100, 200]], dtype=np.uint16), [0, 0, 1]),
        (np.array([[0, 32768, 65535]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0, 100, 255]], dtype=np.int32), [0, 100, 255]),
        (np.array([[-1000, 0, 1000]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[-2.0, np.nan, 2.0]], dtype=np.float32), [0, 128, 255]),
        (np.array([[5.0, 5.0, 5.0]], dtype=np.float32), [5, 5, 5]),
    ],
)
def test_greys_of_more_than_8_bits_keep_their_order(values: np.ndarray, expected: list[int]) -> None:
    found = seen(Image.fromarray(values))
    assert [found.image.getpixel((x, 0)) for x in range(3)] == [(grey,) * 3 for grey in expected]


def test_the_16_bits_of_a_file_are_scaled() -> None:
    found = seen(reopened(Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))))
    assert ([found.image.getpixel((x, 0)) for x in range(2)], found.changes) == ([(0,) * 3, (255,) * 3], (SCALED,))


def test_of_several_frames_the_first_is_seen_and_it_is_said() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    found = seen(reopened(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert found.image.getpixel((0, 0)) == (255, 0, 0)
    assert (found.changes, found.is_changed) == ((FIRST_FRAME,), False)


def test_plain_pictures_need_no_look_at_their_pixels(tmp_path: Path) -> None:
    for mode, kind in (("RGB", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("CMYK", "JPEG")):
        assert not may_change(reopened(Image.new(mode, (4, 4)), kind))
