"""What ms-swift's training makes of a row: its number of tokens, by the template, tokenizer and limits of the stage.

The template is the one that `swift sft` would make from the same flags and environment, and it does all that it does in
training but one thing: instead of a picture's pixels it gets its size. Tests compare the tokens with training's own.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.common.input_files import read_section
from scripts.data.settings import EncodingSettings
from scripts.data.swift_model import MODEL_PLUGIN, model_type, template
from scripts.donors.library_errors import in_one_line

# Special tokens that rows may spell out themselves: how Qwen writes places in a picture.
_ALLOWED_TOKEN = re.compile(r"<\|(object_ref|box|quad)_(start|end)\|>")

_TRAINED_ROLES = ("assistant", "tool_call")

TOO_LONG, TOO_THIN = "longer than max_length", "picture too thin for MAX_PIXELS"
TOKEN_IN_TEXT, NOTHING_TRAINED, NOT_ENCODED = (
    "a token of the model in the text",
    "nothing would be trained",
    "not encoded",
)


@dataclass(frozen=True)
class EncodedRow:
    """How many tokens a row has, and of them those of pictures and those that are trained; or its kind of problem."""

    num_tokens: int = 0
    num_picture_tokens: int = 0
    num_trained_tokens: int = 0
    problem: str = ""
    detail: str = ""


class _SizeOfPicture(Image.Image):
    """A picture without pixels, for code that asks for its size alone."""

    def __init__(self, width_px: int, height_px: int) -> None:
        super().__init__()
        self._size, self._mode = (width_px, height_px), "RGB"

    def convert(self, *_: Any, **__: Any) -> Image.Image:
        return self

    def resize(self, size: Any, *_: Any, **__: Any) -> Image.Image:
        if min(size) <= 0:  # as PIL refuses it
            raise ValueError("height and width must be > 0")
        return _SizeOfPicture(*size)

    def __deepcopy__(self, _: Any) -> Image.Image:
        return self


class _GridsOnly:
    """In place of the picture processor: how many patches each picture has, without its pixels."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, images: Sequence[Image.Image], **_: Any) -> dict[str, Any]:
        import torch

        patch = self._processor.patch_size
        return {"image_grid_thw": torch.tensor([[1, each.height // patch, each.width // patch] for each in images])}


def training_template(model_dir: Path, settings: EncodingSettings) -> Any:
    """ms-swift's template, as the training of the stage makes it. Sets the stage's environment in this process."""
    os.environ.update({name: str(value) for name, value in settings.environment.items()})
    os.environ.update({"USE_HF": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    os.environ.update({"LOG_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error"})  # nothing that a user could act on
    from swift.arguments import BaseArguments

    config = read_section(model_dir / "config.json")
    arguments = BaseArguments(
        model=str(model_dir),
        model_type=model_type(config),
        template=template(config),
        external_plugins=[str(MODEL_PLUGIN)],
        torch_dtype="float32",
        dataset=["none"],  # required, and not read
        **settings.flags,
    )
    made = arguments.get_template()
    made.set_mode("train")
    return made


class RowEncoder:
    """Counts the tokens of rows as one stage trains them. `size_of` gives the width and height of each picture's path."""

    def __init__(self, made: Any, size_of: Mapping[str, tuple[int, int]]) -> None:
        made.processor.image_processor = _GridsOnly(made.processor.image_processor)
        self._template, self._size_of = made, size_of
        self.max_length = made.max_length
        if made.truncation_strategy == "raise":  # a row's length is asked for even where it is too long
            made.max_length = None
        special = [str(token) for token in made.tokenizer.all_special_tokens]
        added = [str(token) for token in made.tokenizer.added_tokens_decoder.values() if token.special]
        names = sorted({*special, *added}, key=len, reverse=True)
        self._token = re.compile("|".join(re.escape(name) for name in names if not _ALLOWED_TOKEN.fullmatch(name)))

    def encoded(self, row: Mapping[str, Any]) -> EncodedRow:
        """The row's tokens, or why training would fail on it."""
        for number, message in enumerate(row["messages"], start=1):
            if found := self._token.search(message["content"]):
                return EncodedRow(problem=TOKEN_IN_TEXT, detail=f"message {number}: {found.group()!r}")
        sizes = [_SizeOfPicture(*self._size_of[path]) for path in row.get("images", [])]
        try:
            found = self._template.encode({**row, **({"images": sizes} if sizes else {})}, return_length=True)
        except Exception as error:  # whatever ms-swift and transformers meet in the row
            return self._failure(error, row)
        ids, labels = found["input_ids"], found["labels"]
        num_trained = len(labels) - labels.count(-100)
        counts = (len(ids), ids.count(self._template.image_token_id), num_trained)
        if self._template.max_length is None and self.max_length and len(ids) > self.max_length:
            return EncodedRow(*counts, TOO_LONG, f"{len(ids)} tokens, max_length is {self.max_length}")
        if not num_trained:
            return EncodedRow(*counts, NOTHING_TRAINED)
        answers = [message for message in row["messages"] if message["role"] in _TRAINED_ROLES]
        if all(message.get("loss") is False for message in answers):  # ms-swift still trains the end of the last one
            return EncodedRow(*counts, NOTHING_TRAINED, "each answer says `loss: false`")
        return EncodedRow(*counts)

    def _failure(self, error: Exception, row: Mapping[str, Any]) -> EncodedRow:
        for path in row.get("images", []):
            try:
                self._template.replace_tag("image", 0, _OnePicture(_SizeOfPicture(*self._size_of[path])))
            except Exception as of_picture:
                width_px, height_px = self._size_of[path]
                return EncodedRow(
                    problem=TOO_THIN, detail=f"{path} ({width_px} x {height_px}: {in_one_line(of_picture)})"
                )
        return EncodedRow(problem=NOT_ENCODED, detail=in_one_line(error))


class _OnePicture:
    """What the template asks of a row to show one picture of it."""

    def __init__(self, image: Image.Image) -> None:
        self.images: list[Image.Image] = [image]
        self.chat_template_kwargs: dict[str, Any] = {}
        self.mm_processor_kwargs: dict[str, Any] = {}
