"""The settings of the training data; config/schema.yaml describes each key."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class DataSettings:
    """The section `data`."""

    bad_rows: Literal["refuse", "drop"]
    max_dropped_fraction: float
    ignored_keys: list[str]

    def findings(self, where: str) -> Iterator[str]:
        """Keys that are what is trained on."""
        for key in sorted({"messages", "images"} & set(self.ignored_keys)):
            yield f"{where}.ignored_keys: {key} found, which is what is trained on; expected other keys of rows; remove it"


# Of a program that is run without the section: nothing is dropped.
REFUSE_ALL = DataSettings(bad_rows="refuse", max_dropped_fraction=0.0, ignored_keys=[])


@dataclass(frozen=True)
class EncodingSettings:
    """Of a stage: its environment, and those of its flags that say how rows become tokens (`TEMPLATE_FLAGS`)."""

    environment: Mapping[str, Any]
    flags: Mapping[str, Any]


# ms-swift's TemplateArguments (swift/arguments/base_args/template_args.py) without what vlgraft sets or refuses. A change of
# one checks the rows anew. A test compares them.
TEMPLATE_FLAGS = frozenset({
    "system", "max_length", "truncation_strategy", "max_pixels", "agent_template", "norm_bbox", "use_chat_template",
    "padding_side", "padding_free", "loss_scale", "is_binary_loss_scale", "response_prefix", "enable_thinking",
    "preserve_thinking", "add_non_thinking_prefix", "disable_ignore_empty_think",
})  # fmt: skip
