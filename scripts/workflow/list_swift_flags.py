"""Lists the flags of the installed ms-swift, with types and defaults, as config/known_flags.json.

The configuration is validated against this file before anything runs, where ms-swift is not installed; ms-swift's own
--help shows a single flag. Make it anew whenever envs/train.lock changes (a test holds the two against each other):
  .venvs/train/bin/python scripts workflow.list_swift_flags --output config/known_flags.json
"""

import argparse
import dataclasses
import json
from enum import Enum
from pathlib import Path
from typing import Any

from scripts.common.errors import run_program
from scripts.common.files import write_text_atomically


def type_name(annotation: Any) -> str:
    """`int`, `bool`, `List[str]`, `Literal['a', 'b']` …"""
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return name.replace("typing.", "")


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """The default as JSON; null where there is none, text for what JSON cannot hold."""
    value: Any = None
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if isinstance(value, Enum):
        value = value.value
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return str(value)


def flags_of(arguments_class: Any) -> dict[str, dict[str, Any]]:
    """Every flag of one command, sorted."""
    fields = sorted(dataclasses.fields(arguments_class), key=lambda field: field.name)
    return {f.name: {"type": type_name(f.type), "default": default_of(f)} for f in fields if f.init}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", required=True, type=Path)
    output = parser.parse_args().output
    from swift.arguments import DeployArguments, SftArguments  # takes ten seconds; after the arguments are known good

    commands = {"deploy": flags_of(DeployArguments), "sft": flags_of(SftArguments)}
    # One line a flag, so that a diff after an upgrade can be read.
    parts = []
    for command, flags in commands.items():
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(flag)}" for name, flag in flags.items())
        parts.append(f"  {json.dumps(command)}: {{\n{lines}\n  }}")
    write_text_atomically(output, "{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    run_program(main)
