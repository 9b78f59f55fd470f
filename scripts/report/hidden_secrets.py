"""Keeps secrets out of pages that are made from results of an earlier version, which let a configuration hold some."""

from typing import Any

from scripts.common.secret_values import HIDDEN, is_secret_name, is_secret_text


def without_secrets(value: Any, name: str = "") -> Any:
    """JSON, or the words of a command, with each secret replaced by a mark; `name` is the key or flag that holds `value`."""
    if isinstance(value, dict):
        return {key: without_secrets(part, str(key)) for key, part in value.items()}
    if isinstance(value, list):
        words = [str(word) for word in value]
        names = [name, *(word.removeprefix("--") if word.startswith("--") else name for word in words)]
        return [without_secrets(part, before) for part, before in zip(value, names, strict=False)]
    if value and not isinstance(value, bool) and (is_secret_name(name) or is_secret_text(str(value))):
        return HIDDEN
    return value
