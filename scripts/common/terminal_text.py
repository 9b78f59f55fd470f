"""A message as a terminal or a log is given it, whatever the names in it hold."""

import re

from scripts.common.secret_values import without_tokens

# Control characters but the line feed and the tab, which messages of ours have; half characters, which no file can hold.
_NOT_PRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def shown(text: str) -> str:
    """The text without secrets and with control characters written out.

    Its further lines are indented, so that a name with a line feed in it cannot look like a message of its own.
    """
    plain = _NOT_PRINTABLE.sub(lambda match: ascii(match.group())[1:-1], without_tokens(text))
    first, *others = plain.split("\n")
    return "\n".join([first, *(line if line.startswith((" ", "\t")) or not line else f"  {line}" for line in others)])
