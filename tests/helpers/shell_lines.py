"""The lines that a page shows, to be run as they stand there."""

import re
from pathlib import Path


def lines_of(page_path: Path) -> str:
    """The first block of shell lines of a page."""
    block = re.search(r"^```sh\n(.*?)^```$", page_path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    return block.group(1)
