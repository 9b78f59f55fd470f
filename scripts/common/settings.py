"""Makes a typed object of a section of the configuration: each field by its name and type, nothing missing, nothing more.

The whole configuration is validated before anything is planned (scripts/workflow/configuration.py). Programs get their
section as JSON and read it with this, so that a section given by hand is checked as well.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from scripts.common.errors import UserError

T = TypeVar("T")


def _agrees(value: Any, kind: Any) -> bool:
    """Whether a JSON value has a field's type; an integer will do for a float, a boolean for neither."""
    if kind is Any:
        return True
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_agrees(value, each) for each in typing.get_args(kind))
    if origin is typing.Literal:
        return value in typing.get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is None:
        return value is None
    return isinstance(value, origin or kind)


def _name_of(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not typing.get_origin(kind) else str(kind).replace("typing.", "")


def settings_from(cls: type[T], section: Any, where: str) -> T:
    """An object of the dataclass `cls`; a field that is a dataclass itself is made of its own section.

    Raises UserError naming the key (`where.key`) that is missing, unknown or of another type.
    """
    if not isinstance(section, Mapping):
        raise UserError(f"{where}: {json.dumps(section)} found; expected a section with keys")
    kinds = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(section.keys() - fields.keys()):
        raise UserError(f"{where}.{unknown[0]}: unknown key; expected {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        key = f"{where}.{name}"
        if name not in section:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise UserError(f"{key}: missing; expected {_name_of(kinds[name])}")
            continue
        value, kind = section[name], kinds[name]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            value = settings_from(kind, value, key)
        elif not _agrees(value, kind):
            raise UserError(f"{key}: {json.dumps(value)} found; expected {_name_of(kind)}")
        values[name] = value
    return cls(**values)


def json_settings(cls: type[T], where: str) -> Callable[[str], T]:
    """For argparse's `type`: the object that a section, given as JSON, describes."""

    def parse(text: str) -> T:
        try:
            section = json.loads(text)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error}); expected the section of the configuration as JSON") from None
        return settings_from(cls, section, where)

    return parse
