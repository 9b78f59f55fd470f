"""Whether a value fits a flag of ms-swift, by the type that config/known_flags.json has for it.

The type is the text of a Python annotation. A value becomes words of a command line: a list several, all else one.
"""

import ast
import functools
import json
from typing import Any

_SIMPLE: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}
_LISTS = ("List", "list")
_DICTS = ("Dict", "dict")


@functools.cache
def _parsed(type_name: str) -> ast.expr:
    return ast.parse(type_name, mode="eval").body


def _parts(node: ast.expr) -> list[ast.expr]:
    """What stands between the brackets of `Name[…]`."""
    assert isinstance(node, ast.Subscript)
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _fits(value: Any, node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _fits(value, node.left) or _fits(value, node.right)
    if isinstance(node, ast.Constant):
        return bool(value is node.value)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        name, parts = node.value.id, _parts(node)
        if name == "Optional":
            return value is None or _fits(value, parts[0])
        if name == "Union":
            return any(_fits(value, part) for part in parts)
        if name == "Literal":
            choices = [part.value for part in parts if isinstance(part, ast.Constant)]
            return any(type(value) is type(choice) and value == choice for choice in choices)
        if name in _LISTS:
            values = value if isinstance(value, list) else [value]
            return bool(values) and all(_fits(each, parts[0]) for each in values)
        return name in _DICTS and isinstance(value, dict)
    if isinstance(node, ast.Name):
        if node.id == "NoneType":
            return value is None
        if node.id in _DICTS:
            return isinstance(value, dict)
        kinds = _SIMPLE.get(node.id, ())
        return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    return False  # a class of a library: its values are given as the text that stands beside it


def fits_flag(value: Any, type_name: str) -> bool:
    """Whether a YAML value can be given to a flag of this type."""
    return _fits(value, _parsed(type_name))


def _is_numeric(type_name: str) -> bool:
    names = {node.id for node in ast.walk(_parsed(type_name)) if isinstance(node, ast.Name)}
    return bool(names & {"int", "float"}) and "str" not in names


def type_hint(value: Any, *, is_number: bool) -> str:
    """Why YAML gave another type than was meant, in parentheses, or nothing."""
    if isinstance(value, str) and is_number:
        return " (YAML reads 1e-3 as text: write 1.0e-3)"
    if isinstance(value, bool):
        return ' (YAML reads yes, no, on and off as true and false: write "no" in quotes)'
    return ""


def flag_type_finding(value: Any, type_name: str) -> str | None:
    """What is wrong with a flag's value, or None."""
    if fits_flag(value, type_name):
        return None
    expected = type_name
    node = _parsed(type_name)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
        choices = [part.value for part in _parts(node) if isinstance(part, ast.Constant)]
        expected = "one of " + ", ".join(json.dumps(choice) for choice in choices)
    return f"{json.dumps(value)} found, {expected} expected{type_hint(value, is_number=_is_numeric(type_name))}"
