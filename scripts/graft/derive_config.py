"""Derives the grafted model's config.json from the two donors' config.json files; no number is typed by hand.

Why: the published recipe types the numbers, and types 32 layers where Qwen3-8B has 36, which silently drops four of
them. Here the language model's numbers are the language donor's, the vision tower's are the vision donor's, and what
cannot fit together is refused before any weight is read. docs/graft.md lists where each key comes from.

By hand: .venv/bin/python scripts graft.derive_config --config config/demo.yaml
"""

import argparse
import os
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError, run_program
from scripts.common.files import write_json_atomically
from scripts.common.input_files import read_section
from scripts.common.ownership import owned
from scripts.common.settings import json_settings
from scripts.graft.config import AddedTokens, derive_config
from scripts.graft.donor_configs import is_integer, read_language_donor, read_vision_donor
from scripts.graft.preparation import check_output_dir
from scripts.graft.settings import GraftSettings

# Where tokenizers keep the ids of added tokens, newest convention first.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json")


def _added_tokens_in(name: str, values: dict[str, Any]) -> dict[Any, Any]:
    """{token: id} that one of the tokenizer's files lists. Raises an error of Python's where it is of another form."""
    if name == "tokenizer.json":
        return {entry["content"]: entry["id"] for entry in values.get("added_tokens") or []}
    if name == "tokenizer_config.json":
        return {entry["content"]: int(number) for number, entry in (values.get("added_tokens_decoder") or {}).items()}
    return values


def read_added_tokens(directory: Path) -> dict[str, int] | None:
    """{token: id} of the tokenizer's added tokens, or None where the directory has no tokenizer file that lists them."""
    for name in _TOKENIZER_FILES:
        path = directory / name
        if not os.path.lexists(path):  # a link whose target is gone is an error below
            continue
        try:
            tokens = _added_tokens_in(name, read_section(path))
            is_sound = all(
                isinstance(token, str) and is_integer(number) and number >= 0 for token, number in tokens.items()
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            is_sound = False
        if not is_sound:
            raise UserError(f"{path}: its added tokens are not texts with ids; fetch this file again")
        if tokens:
            return tokens
    return None


def derive_from_donors(vl_dir: Path, llm_dir: Path, settings: GraftSettings) -> dict[str, Any]:
    """Reads both donors' config.json and tokenizers (where there are any) and derives the grafted configuration."""
    tokenizers = [
        AddedTokens("vision donor", vl_dir, read_added_tokens(vl_dir)),
        AddedTokens("language donor", llm_dir, read_added_tokens(llm_dir)),
    ]
    return derive_config(read_vision_donor(vl_dir), read_language_donor(llm_dir), settings, tokenizers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vl-dir", type=Path, required=True, help="vision donor (Qwen2.5-VL)")
    parser.add_argument("--llm-dir", type=Path, required=True, help="language donor (Qwen3)")
    parser.add_argument(
        "--settings", type=json_settings(GraftSettings, "graft"), required=True, help="the config's `graft`, as JSON"
    )
    parser.add_argument("--output", type=Path, required=True, help="config.json to write")
    arguments = parser.parse_args()
    check_output_dir(arguments.output, (arguments.vl_dir, arguments.llm_dir))
    with owned(arguments.output):
        config = derive_from_donors(arguments.vl_dir, arguments.llm_dir, arguments.settings)
        write_json_atomically(arguments.output, config)


if __name__ == "__main__":
    run_program(main)
