"""What the server for people makes of a picture, in place of ms-swift's own reading."""

import base64
import importlib
import io
from collections.abc import Iterator
from types import ModuleType

import pytest
from PIL import Image

pytest.importorskip("swift", reason="the train environment has it")


@pytest.fixture
def template_base() -> Iterator[ModuleType]:
    """ms-swift's module, with the plugin while the test lasts."""
    from swift.template import base

    own = base.load_image
    importlib.reload(importlib.import_module("scripts.serve.seen_pictures_plugin"))
    yield base
    base.load_image = own


def test_a_photograph_is_upright_and_what_is_transparent_is_white(template_base: ModuleType) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying, clear = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(lying, "JPEG", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear, "PNG")
    load = template_base.Template._load_image
    as_sent = f"data:image/jpeg;base64,{base64.b64encode(lying.getvalue()).decode()}"
    assert load(as_sent, True).size == (30, 40)
    assert load(as_sent, True).mode == "RGB"
    assert load({"bytes": clear.getvalue()}, True).getpixel((0, 0)) == (255, 255, 255)
    assert load(Image.new("RGB", (5, 6)), True).size == (5, 6)
