"""One user's row in the form that ms-swift trains on, made by ms-swift's own preprocessors, and no key of it lost.

ms-swift finds out from the names of a file's columns which form its rows have (messages, ShareGPT, query and response,
alpaca), renames columns, and drops in silence what it does not use. Here a key that would be dropped is a RowProblem.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from scripts.data.row_files import RowProblem
from scripts.donors.library_errors import in_one_line

# What `swift sft` trains on, or by. The rest of ms-swift's standard keys belong to other trainings.
KEPT_KEYS = ("messages", "images", "objects", "tools", "channel", "chat_template_kwargs")
_UNSUPPORTED_MEDIA = ("videos", "audios")
_MESSAGE_KEYS = {"role", "content", "loss", "loss_scale"}
_OBJECT_KEYS = {"ref", "bbox", "bbox_type", "image_id"}
# Two names of one thing, of which ms-swift takes the second.
_SAME_IN_A_MESSAGE = (("role", "from"), ("content", "value"), ("user", "human"), ("assistant", "gpt", "bot"))
_TOOL_ROLES = {"tool_call", "tool", "tool_response"}


def _is_given(value: Any) -> bool:
    return value not in (None, "", [], {})


class _Read(dict[str, Any]):
    """A message that remembers which of its keys were read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.given = {key for key, value in values.items() if _is_given(value)}
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self.read.add(key)
        return super().pop(key, *default)


# What ms-swift does to a row before it trains on it (swift/dataset/preprocessor/core.py), by the key that it concerns.
_NORMALISERS = {
    "objects": "_check_objects",
    "messages": "_check_messages",
    "images": "_cast_mm_data",
    "tools": "_normalize_tools",
}


class SwiftForm:
    """ms-swift's preprocessor for a file with these columns."""

    def __init__(self, columns: Collection[str], ignored_keys: Collection[str] = ()) -> None:
        from datasets import Dataset
        from swift.dataset import AutoPreprocessor, RowPreprocessor

        names = [name for name in columns if name not in ignored_keys]
        # A table without values: ms-swift asks for its columns alone.
        table = Dataset.from_dict({name: [None] for name in names})
        self._preprocessor = AutoPreprocessor()._get_preprocessor(table)
        renamed = RowPreprocessor.safe_rename_columns(table, self._preprocessor.columns)
        self._name_of = dict(zip(names, renamed.column_names, strict=True))

    def standard(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row's messages, and its pictures, objects and tools where it has them; raises RowProblem with the key at fault."""
        row = {new: values.get(old) for old, new in self._name_of.items()}
        messages = _watched_messages(row)
        _check_response(row)
        try:
            result = self._preprocessor.preprocess(row)
            if not isinstance(result, dict) or not result.get("messages"):
                keys = ", ".join(sorted(map(repr, (key for key, value in values.items() if value is not None))))
                raise RowProblem(
                    f"no messages found in its keys ({keys or 'none'}); expected messages, or the form of the file's other rows: "
                    "ms-swift reads a file in one form, so give each form a file of its own"
                )
            _check_messages(messages, result["messages"])
            _check_sections(result)
            for part, normalise in _NORMALISERS.items():
                self._normalise(part, normalise, result)
        except RowProblem:
            raise
        except Exception as error:  # whatever its code meets in the row
            raise RowProblem(f"ms-swift cannot read it ({type(error).__name__}: {in_one_line(error)})") from None
        return _plain({key: value for key, value in result.items() if value is not None})

    def _normalise(self, part: str, name: str, result: dict[str, Any]) -> None:
        try:
            getattr(self._preprocessor, name)(result)
        except Exception as error:  # assertions without words, mostly
            reason = in_one_line(error)
            raise RowProblem(f"{part}: ms-swift cannot read it ({type(error).__name__}: {reason})") from None


def _watched_messages(row: dict[str, Any]) -> list[_Read]:
    """The messages of the row as they were given, put in their place so that it is known which of their keys are read."""
    messages = row.get("messages")
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError:
            return []  # ms-swift reads it in another way, or refuses it
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        return []
    watched = [_Read(message) for message in messages]
    for number, message in enumerate(watched, start=1):
        for names in _SAME_IN_A_MESSAGE:
            if len(both := [name for name in names if name in message]) > 1:
                raise RowProblem(f"message {number}: {both[0]!r} and {both[1]!r} found; expected one of them")
    row["messages"] = watched
    return watched


def _check_response(row: Mapping[str, Any]) -> None:
    response = row.get("response")
    if isinstance(response, list) and len(response) > 1:
        raise RowProblem(f"response: {len(response)} answers found; expected one, for ms-swift takes the first alone")


def _check_messages(given: list[_Read], result: list[Any]) -> None:
    left = {id(message) for message in result}
    for number, message in enumerate(given, start=1):
        lost = message.given - message.read
        if id(message) in left:
            lost = (lost & message.keys()) - _MESSAGE_KEYS
        lost = {key for key in lost if key != "name" or message.get("role") not in ("tool", "tool_response")}
        _check_keys([f"messages[{number}].{key}" for key in sorted(lost)])


def _check_sections(result: Mapping[str, Any]) -> None:
    """Raises RowProblem for what ms-swift keeps and its training does not use."""
    for key, value in result.items():
        if key in _UNSUPPORTED_MEDIA and value:
            raise RowProblem(f"key {key!r}: trained here are pictures alone; expected none; write the row without it")
    _check_keys([key for key, value in result.items() if key not in KEPT_KEYS and _is_given(value)])
    if isinstance(objects := result.get("objects"), Mapping):
        _check_keys(
            [f"objects.{key}" for key, value in objects.items() if key not in _OBJECT_KEYS and value is not None]
        )


def _check_keys(names: list[str]) -> None:
    if names:
        raise RowProblem(
            f"key {', '.join(map(repr, names))}: ms-swift's training would drop it; expected none that is not trained on; "
            "remove it, or name it in data.ignored_keys"
        )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row with texts in all its turns, pictures named by parts of a turn in their list, and the turns as plain sections."""
    from swift.template.template_inputs import StdTemplateInputs

    messages = [dict(message) for message in row["messages"]]
    for message in messages:
        if message["role"] in _TOOL_ROLES and not isinstance(message["content"], str):
            message["content"] = json.dumps(message["content"], ensure_ascii=False)
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    try:
        media = StdTemplateInputs.remove_messages_media(turns)
    except (AttributeError, KeyError, TypeError) as error:
        raise RowProblem(f"a turn's content is in parts that ms-swift cannot read ({in_one_line(error)})") from None
    if media["videos"] or media["audios"]:
        raise RowProblem("a turn with a video or a sound found; trained here are pictures alone")
    if media["images"]:
        if row.get("images"):
            raise RowProblem("pictures in a turn's content and in 'images' found; expected them in one of the two")
        row["images"] = media["images"]
    return {**row, "messages": messages}
