"""Loaded by `swift deploy` where it serves people: pictures are shown as a person sees them, as they were trained on.

An evaluation's server does not load it: the pictures of a benchmark are shown as its harness sends them.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

# ms-swift imports this file by its path; last, so that nothing of this project hides another package.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from PIL import Image
from swift.template import base
from swift.template.vision_utils import load_file

from scripts.data.seen_pictures import seen


def load_image(image: Any) -> Image.Image:
    """In place of ms-swift's function of that name, whose picture is what PIL makes of the file (`convert("RGB")`)."""
    content = load_file(image)
    return seen(Image.open(content) if isinstance(content, BytesIO) else content).image


base.load_image = load_image
