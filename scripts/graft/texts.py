"""Text for measuring and calibrating language models: plain files, or rows of training data. Needs transformers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from scripts.common.errors import UserError
from scripts.data.rows import IMAGE_TAG
from scripts.graft.own_code import is_trusted


def load_tokenizer(directory: Path) -> Any:
    """A checkpoint's tokenizer. A graft needs trust (without it transformers would stop and ask), a donor never gets it."""
    return AutoTokenizer.from_pretrained(directory, trust_remote_code=is_trusted(directory))


def read_content(path: Path, key: str) -> str:
    """The file's text; raises UserError naming the configuration's `key` that asked for it."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: not found; expected the text of {key}; check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it, or name another file as {key}"
        ) from None


def read_texts(path: Path, key: str, tokenizer: Any) -> Iterator[str]:
    """Paragraphs of a plain file, or the rows of a .jsonl as the tokenizer's chat template renders them, without pictures."""
    content = read_content(path, key)
    if path.suffix != ".jsonl":
        yield from (paragraph.strip() for paragraph in content.split("\n\n") if paragraph.strip())
        return
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            messages = json.loads(line)["messages"]
            plain = [message | {"content": message["content"].replace(IMAGE_TAG, "")} for message in messages]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise UserError(
                f'{path}, row {number}: no row of training data; expected {{"messages": [{{"role": ..., "content": '
                "...}]}; correct the row or name a plain text"
            ) from None
        yield tokenizer.apply_chat_template(plain, tokenize=False)
