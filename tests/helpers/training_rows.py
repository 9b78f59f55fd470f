"""Training rows as a user's file holds them."""

import json
from pathlib import Path
from typing import Any

from scripts.data.rows import IMAGE_TAG

Row = dict[str, Any]


def row_of(name: str, images: list[str]) -> Row:
    return {
        "messages": [{"role": "user", "content": IMAGE_TAG * len(images)}, {"role": "assistant", "content": name}],
        "images": images,
    }


def write_rows(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
