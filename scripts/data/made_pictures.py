"""Pictures of training rows as files that training can read as they are: made once, and each change counted."""

import base64
import binascii
import hashlib
import io
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.common.files import write_bytes_atomically
from scripts.common.input_files import file_fault
from scripts.data.addresses import fetch_picture, is_address
from scripts.data.row_files import RowProblem
from scripts.data.seen_pictures import may_change, seen
from scripts.donors.library_errors import in_one_line

_DATA_ADDRESS = re.compile(r"data:[^;,]*;base64,(.*)", re.DOTALL)


class PictureMaker:
    """Gives a file for each picture; `num_changed` counts pictures by how they were changed."""

    def __init__(self, pictures_dir: Path) -> None:
        self._dir = pictures_dir
        self._made: dict[str, str] = {}  # of files and addresses that were asked for before
        self.num_changed: Counter[str] = Counter()

    def path_of(self, image: Any) -> str:
        """The absolute path of a picture given as a path, an address, bytes, or base64; raises RowProblem.

        A file that is not there, or is no picture, is left to the check of all pictures.
        """
        if isinstance(image, dict) and isinstance(content := image.get("bytes"), bytes | str):
            return self._written(content if isinstance(content, bytes) else _decoded(content))
        if not isinstance(image, str):
            raise RowProblem(f"a picture is {type(image).__name__}; expected a path, an address or base64")
        if image not in self._made:
            fetched = fetch_picture(image, self._dir) if is_address(image) else None
            self._made[image] = self._seen_file(image) if fetched is None else self._written(fetched)
        return self._made[image]

    def _seen_file(self, path: str) -> str:
        if file_fault(path):
            return path
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path) as picture:
                    return self._of(picture) or path
        except Exception:  # decoders raise whatever they meet; the check of all pictures says what
            return path

    def _written(self, content: bytes) -> str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(content)) as picture:
                    suffix = (picture.format or "bin").lower()
                    if path := self._of(picture):
                        return path
        except Exception as error:
            raise RowProblem(f"a picture given as bytes cannot be read ({in_one_line(error)})") from None
        return write_picture(content, suffix, self._dir)

    def _of(self, picture: Image.Image) -> str | None:
        """Where the changed picture is; None where nothing changes."""
        if not may_change(picture):
            return None
        found = seen(picture)
        self.num_changed.update(found.changes)
        return write_picture(found.png(), "png", self._dir) if found.is_changed else None


def _decoded(text: str) -> bytes:
    match = _DATA_ADDRESS.fullmatch(text)
    try:
        return base64.b64decode("".join((match.group(1) if match else text).split()), validate=True)
    except binascii.Error as error:
        raise RowProblem(f"a picture is no base64 ({error}); write its path, or its bytes in base64") from None


def write_picture(content: bytes, suffix: str, pictures_dir: Path) -> str:
    """Writes a picture under its sha256, once; gives its absolute path."""
    digest = hashlib.sha256(content).hexdigest()
    path = pictures_dir / digest[:2] / f"{digest}.{suffix}"
    if not path.exists():
        write_bytes_atomically(path, content, is_synced=False)
    return str(path.absolute())
