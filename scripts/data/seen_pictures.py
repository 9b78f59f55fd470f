"""A picture as a person sees it: upright, on white where it is transparent, with all of its greys.

What ms-swift and transformers do by themselves (`Image.open(…).convert("RGB")`) lays a phone's photograph on its side, shows
what is transparent in the colour that happens to be stored there, often black, and cuts 16-bit greys off at 255, so that all
but the darkest become white. Training rows, questions and `make chat` show pictures through this module instead.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

_ORIENTATION_TAG = 0x0112  # of EXIF
_UPRIGHT = 1
_MODES_OF_GREYS = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_LARGEST_OF_16_BITS = 65535

# How a picture can differ from what PIL alone makes of it, as counted in a dataset's report.
TURNED, ON_WHITE, SCALED, FIRST_FRAME = "turned upright", "laid on white", "greys scaled to 8 bits", "first frame taken"


@dataclass(frozen=True)
class SeenPicture:
    """A picture in RGB, and in which ways it was changed on the way."""

    image: Image.Image
    changes: tuple[str, ...]

    @property
    def is_changed(self) -> bool:
        """Whether PIL alone would give other pixels; it takes the first frame itself."""
        return bool({*self.changes} - {FIRST_FRAME})

    def png(self) -> bytes:
        """The picture as a file, the same bytes each time."""
        content = io.BytesIO()
        self.image.save(content, "PNG")
        return content.getvalue()


def may_change(picture: Image.Image) -> bool:
    """Whether an open picture, not decoded yet, could be one that is changed or has several frames."""
    return (
        picture.getexif().get(_ORIENTATION_TAG, _UPRIGHT) != _UPRIGHT
        or picture.mode in _MODES_OF_GREYS
        or picture.has_transparency_data
        or getattr(picture, "n_frames", 1) > 1
    )


def seen(picture: Image.Image) -> SeenPicture:
    """The picture as a person sees it; raises what the decoder meets in the file."""
    changes = []
    if getattr(picture, "n_frames", 1) > 1:
        changes.append(FIRST_FRAME)
    orientation = picture.getexif().get(_ORIENTATION_TAG, _UPRIGHT)
    if orientation != _UPRIGHT and 1 <= orientation <= 8:
        picture = ImageOps.exif_transpose(picture)
        changes.append(TURNED)
    if picture.mode in _MODES_OF_GREYS:
        picture, is_scaled = _eight_bits(picture)
        changes += [SCALED] * is_scaled
    if picture.has_transparency_data:
        picture, is_on_white = _on_white(picture)
        changes += [ON_WHITE] * is_on_white
    return SeenPicture(picture.convert("RGB"), tuple(changes))


def as_seen(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A picture file as a person sees it, and how it was changed; the same bytes where PIL alone gives the same pixels."""
    with Image.open(io.BytesIO(content)) as picture:
        found = seen(picture) if may_change(picture) else None
    if found is None:
        return content, ()
    return found.png() if found.is_changed else content, found.changes


def _eight_bits(picture: Image.Image) -> tuple[Image.Image, bool]:
    """Greys from 0 to 255: 16 bits by their range, others from the least to the greatest where they do not fit."""
    values = np.asarray(picture, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0) if picture.mode == "F" else values
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if picture.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif picture.mode.startswith("I;16") or (low >= 0 and 255 < high <= _LARGEST_OF_16_BITS):
        low, high = 0.0, float(_LARGEST_OF_16_BITS)
    elif low >= 0 and high <= 255:
        return Image.fromarray(values.astype(np.uint8), "L"), False
    scaled = (values - low) * (255.0 / ((high - low) or 1.0))
    return Image.fromarray(np.rint(scaled).astype(np.uint8), "L"), True


def _on_white(picture: Image.Image) -> tuple[Image.Image, bool]:
    """The picture laid on white, and whether any of it is transparent."""
    with_alpha = picture.convert("RGBA")
    if with_alpha.getchannel("A").getextrema() == (255, 255):
        return with_alpha, False
    white = Image.new("RGBA", with_alpha.size, "white")
    return Image.alpha_composite(white, with_alpha), True
