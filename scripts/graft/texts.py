"""Text for measuring and calibrating language models: plain files, or rows of training data. Needs transformers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from scripts.common.errors import UserError
from scripts.common.input_files import read_input_text
from scripts.common.json_text import json_value
from scripts.data.rows import IMAGE_TAG
from scripts.graft.own_code import is_trusted


def load_tokenizer(directory: Path) -> Any:
    """A checkpoint's tokenizer. A graft needs trust (without it transformers would stop and ask), a donor never gets it."""
    return AutoTokenizer.from_pretrained(directory, trust_remote_code=is_trusted(directory))


def read_texts(path: Path, key: str, tokenizer: Any) -> Iterator[str]:
    """Paragraphs of a plain file, or the rows of a .jsonl as the tokenizer's chat template renders them, without pictures."""
    content = read_input_text(path, f"the text of {key}", f"check the path, convert it, or name another file as {key}")
    if path.suffix != ".jsonl":
        yield from (paragraph.strip() for paragraph in content.split("\n\n") if paragraph.strip())
        return
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            messages = json_value(line)["messages"]
            plain = [message | {"content": message["content"].replace(IMAGE_TAG, "")} for message in messages]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f'{path}, row {number}: no row of training data; expected {{"messages": [{{"role": ..., "content": '
                "...}]}; correct the row or name a plain text"
            ) from None
        yield tokenizer.apply_chat_template(plain, tokenize=False)
