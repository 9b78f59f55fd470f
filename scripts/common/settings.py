"""Makes a typed object of a section of the configuration: each field by its name and type, nothing missing, nothing more.

The whole configuration is validated before anything is planned (scripts/workflow/configuration.py). Programs get their
section as JSON and read it with this, so that a section given by hand is checked as well. The JSON files that programs
write for each other are read in the same way (`read_object` in scripts/common/reading.py).
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from scripts.common.errors import UserError
from scripts.common.json_text import json_value
from scripts.common.secret_values import secret_findings

T = TypeVar("T")


def _agrees(value: Any, kind: Any) -> bool:
    """Whether a JSON value has a field's type. An integer is accepted as a float, a boolean as neither."""
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
    if dataclasses.is_dataclass(kind):
        return True  # `settings_from` looks into it
    if not isinstance(value, origin or kind):
        return False
    kinds = typing.get_args(kind)
    if isinstance(value, list) and kinds:
        return all(_agrees(each, kinds[0]) for each in value)
    if isinstance(value, Mapping) and kinds:
        return all(_agrees(each, kinds[1]) for each in value.values())
    return True


def _name_of(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not typing.get_origin(kind) else str(kind).replace("typing.", "")


def _field_value(kind: Any, value: Any, key: str) -> Any:
    """A JSON value as a field of type `kind` holds it: sections become objects, also in lists and under free keys."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return settings_from(kind, value, key)
    if not _agrees(value, kind):
        raise UserError(f"{key}: {json.dumps(value)} found; expected {_name_of(kind)}")
    origin, kinds = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        classes = [each for each in kinds if dataclasses.is_dataclass(each)]
        if classes and not any(_agrees(value, each) for each in kinds if each not in classes):
            keys = set(value) if isinstance(value, Mapping) else set()
            with_keys = (each for each in classes if {field.name for field in dataclasses.fields(each)} == keys)
            return _field_value(next(with_keys, classes[-1]), value, key)
    elif isinstance(value, list) and kinds:
        return [_field_value(kinds[0], each, f"{key}[{number}]") for number, each in enumerate(value)]
    elif isinstance(value, Mapping) and kinds:
        return {name: _field_value(kinds[1], each, f"{key}.{name}") for name, each in value.items()}
    return value


def settings_from(cls: type[T], section: Any, where: str = "") -> T:
    """An object of the dataclass `cls`; a field that is a dataclass itself is made of its own section.

    Of several dataclasses that a field may be, the one is taken that has the section's keys. Raises UserError naming the
    key (`where.key`) that is missing, unknown or of another type.
    """
    if not isinstance(section, Mapping):
        raise UserError(f"{where and where + ': '}{json.dumps(section)} found; expected a section with keys")
    prefix = where and where + "."
    kinds = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(section.keys() - fields.keys()):
        raise UserError(f"{prefix}{unknown[0]}: unknown key; expected {', '.join(fields)}")
    values = {}
    for name, field in fields.items():
        key = prefix + name
        if name not in section:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise UserError(f"{key}: missing; expected {_name_of(kinds[name])}")
            continue
        values[name] = _field_value(kinds[name], section[name], key)
    return cls(**values)


def json_settings(cls: type[T], where: str) -> Callable[[str], T]:
    """For argparse's `type`: the object that a section, given as JSON, describes.

    Where the class has a method `findings(where)`, which gives one line for each fault, the first one is an error.
    """

    def parse(text: str) -> T:
        try:
            section = json_value(text)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error}); expected the section of the configuration as JSON") from None
        if secrets := secret_findings(section, where):  # before any message that shows a value
            raise UserError(secrets[0])
        settings = settings_from(cls, section, where)
        for finding in settings.findings(where) if hasattr(settings, "findings") else ():
            raise UserError(finding)
        return settings

    return parse
