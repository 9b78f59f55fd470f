"""Finds secrets by their names and their looks: keys, tokens, passwords, addresses that hold a password.

A configuration stands in logs and in the published checkpoint. A secret belongs into a variable of the shell, which jobs inherit.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "(secret)"

# WANDB_API_KEY, hub_token, apiKey …; not IMAGE_MAX_TOKEN_NUM, new_special_tokens, pad_token, reft_layer_key.
_SECRET_NAME = re.compile(
    r"(^|_)(PASS(WORD|WD|PHRASE)?|PWD|SECRETS?|CREDENTIALS?|AUTH(ORIZATION)?|WEBHOOK(_URL)?|SIG(NATURE)?|CONNECTION_STRING|PAT|SAS"
    r"|(?<!(PAD|EOS|BOS|UNK|SEP|CLS)_)(?<!(MASK)_)(?<!(IMAGE|VIDEO)_)TOKEN|(?<=_)(?<!LAYER_)(?<!PRNG_)KEY|ACCESS_KEY_ID"
    r"|(API|ACCESS|SECRET|PRIVATE)KEY)(_?\d+)?$"
)
_WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]")

# What the tokens of hubs, code hosts and clouds look like, whatever holds them.
_SECRET_TEXT = re.compile(
    r"(?<![\w-])(hf_[A-Za-z0-9]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[abeprs]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|ms-[0-9a-f]{8}-[0-9a-f-]{27}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:\bauthorization: *\S+ *\S*|\bbearer +[\w.~+/-]{16,})"
)

# scheme://user:password@, https://token@ and, as a whole text, user:password@host:port.
_IN_ADDRESS = re.compile(
    r"(?i:\b([a-z][a-z0-9+.-]*://)([^\s/@:]*:(?!\d+/)[^\s@]+|(?<=http://)[^\s/@:]+|(?<=https://)[^\s/@:]+)@)"
)
_BEFORE_HOST = re.compile(r"[^\s/@:]+:[^\s/@]+@[\w.-]+(:\d+)?/?")
_ASSIGNMENT = re.compile(r"(?<![/\w.-])([\w.-]+)=[^\s&;,]{4,}")


def is_secret_name(name: str) -> bool:
    """Whether a variable, flag or key of this name holds a secret."""
    return _SECRET_NAME.search(_WORD_BOUNDARY.sub("_", name).upper()) is not None


def without_tokens(text: str) -> str:
    """A text with passwords in addresses, and what looks like a token, hidden."""
    return _SECRET_TEXT.sub(HIDDEN, _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text))


def is_secret_text(text: str) -> bool:
    """Whether a value is or holds a secret; `api_key=…` is one, too."""
    assigned = any(is_secret_name(match.group(1)) for match in _ASSIGNMENT.finditer(text))
    return assigned or without_tokens(text) != text or _BEFORE_HOST.fullmatch(text) is not None


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in JSON that is neither a section nor a list, with its key, `a.b`."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from leaves(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part, key)
    else:
        yield key, value


def secret_keys(value: Any, key: str = "") -> Iterator[str]:
    """The keys of JSON, as `a.b`, whose values are secrets; JSON within a string is looked into."""
    for where, found in leaves(value, key):
        if isinstance(found, str) and found.startswith("{"):
            with contextlib.suppress(ValueError):
                yield from secret_keys(json.loads(found), where)
                continue
        is_setting = found and not isinstance(found, bool)
        if is_setting and (is_secret_name(where.rpartition(".")[2]) or is_secret_text(str(found))):
            yield where


def secret_findings(value: Any, where: str = "") -> list[str]:
    """One line for each secret in a configuration, or in a section of it."""
    advice = (
        "would stand in logs, metrics and the published model; remove it, and export it as a variable of your shell"
    )
    return [f"{key}: a secret, which {advice}" for key in dict.fromkeys(secret_keys(value, where))]
