"""Every key of a configuration that holds text, found in the schema, and texts that a shell, Snakemake or YAML may change."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.common.secret_values import is_secret_name
from scripts.serve.settings import OWNED_FLAGS as OWNED_BY_SERVER
from scripts.train.flag_conflicts import CHOICES
from scripts.train.settings import OWNED_FLAGS as OWNED_BY_TRAINER
from scripts.train.settings import REFUSED_FLAGS
from scripts.workflow.flag_types import fits_flag

Key = tuple[str | int, ...]

# In a name of a file, too.
IN_NAMES = (
    "a b", " a ", "it's", 'say "a"', "$(touch x)", "`touch x`", "$HOME", "a;b|c&d>e", "-n", "a*?[b]", "\\", "ä模型😀", "#1 %s",
    "~",
)  # fmt: skip
# What Snakemake reads as its own pattern, and ends of lines: not in a name of a file.
IN_TEXTS = (*IN_NAMES, "{model}", "{stage}", "{donor} {log}", "{{x}}", "{0} {", "<results>", "two\nlines", "tab\there")

# Free texts of ms-swift whose values are one of a list of its own.
_CHOSEN = {*CHOICES, "loss_scale", "report_to", "optim", "tuner_type", "save_strategy"}


def text_keys(root: Path, backend: str = "transformers") -> dict[Key, str]:
    """Each key that holds text, with what it holds: `path`, `text`, or `name` for what a pattern limits."""
    schema = yaml.safe_load((root / "config/schema.yaml").read_text())
    known_flags = json.loads((root / "config/known_flags.json").read_text())
    found = dict(_text_keys(schema, schema, (), known_flags))
    refused = OWNED_BY_TRAINER | REFUSED_FLAGS.keys() | OWNED_BY_SERVER | _CHOSEN
    other_backends = tuple(name for name in ("vllm_", "sglang_", "lmdeploy_") if name != f"{backend}_")
    return {
        key: kind
        for key, kind in found.items()
        if "flags" not in key
        or not (str(key[-1]) in refused or str(key[-1]).startswith(other_backends) or is_secret_name(str(key[-1])))
    }


def _text_keys(
    node: Mapping[str, Any], schema: Mapping[str, Any], key: Key, known_flags: Mapping[str, Any]
) -> Iterator[tuple[Key, str]]:
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    types = node.get("type", [])
    if "string" in ([types] if isinstance(types, str) else types) and "enum" not in node:
        yield key, "path" if node.get("x-path") else "name" if "pattern" in node else "text"
    for name, part in node.get("properties", {}).items():
        yield from _text_keys(part, schema, (*key, name), known_flags)
    if isinstance(node.get("additionalProperties"), Mapping):
        yield from _text_keys(
            node["additionalProperties"], schema, (*key, "NAME" if "environment" in key else "name"), known_flags
        )
    if "items" in node:
        yield from _text_keys(node["items"], schema, (*key, 0), known_flags)
    if "x-flags" in node:
        for flag, about in known_flags[node["x-flags"]].items():
            if fits_flag("text", about["type"]) and flag not in node["properties"]:
                yield (*key, flag), "text"


def with_text(config: Mapping[str, Any], key: Key, text: str) -> dict[str, Any]:
    """A copy of a configuration with one text set; a donor becomes of the kind that has the key."""
    result = copy.deepcopy(dict(config))
    section: Any = result
    if key[0] == "donors":
        for role in result["donors"]:
            result["donors"][role] = {"kind": "local", "path": "donors/other"}
        if key[-1] != "path":
            result["donors"][key[1]] = {"kind": "huggingface", "id": "a/b", "revision": "main"}
    if key[:2] == ("evaluate", "benchmarks") and len(key) > 3:
        result["evaluate"]["benchmarks"] = [{"name": ""}]
        text += ".tsv"
    if key[1:] == ("datasets", 0):
        text += ".jsonl"
    if key[-1] in ("choice_prompt", "open_prompt"):
        result["evaluate"]["backend"] = "native"
        text = "{question} {options} " + text.replace("{", "{{").replace("}", "}}")
    for part in key[:-1]:
        section = section[part]
    if section == []:
        section.append("")
    section[key[-1]] = text
    return result


def text_in(config: Mapping[str, Any], key: Key) -> str:
    """The text that a configuration has under a key."""
    section: Any = config
    for part in key:
        section = section[part]
    return str(section)
