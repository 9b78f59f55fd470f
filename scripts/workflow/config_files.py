"""Reads the files of a configuration and puts them together, the later ones over the earlier ones.

Snakemake's own reader keeps the last of two equal keys without a word, and merges sections that exclude each other. Here a
key that is given twice is a finding, and a later file can take another kind of donor or another length of a training.
"""

import json
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts.common.errors import UserError
from scripts.common.input_files import read_input_text
from scripts.common.json_text import MAX_DEPTH, check_depth

# More values than any configuration has: aliases of aliases that would become millions.
MAX_NUM_VALUES = 100_000

# Flags that say the same in two ways: one in a later file replaces the other in an earlier one.
_LENGTH_FLAGS = {"max_steps": "num_train_epochs", "num_train_epochs": "max_steps"}

_PLAIN_KEY = re.compile(r"[\w-]+")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def key_path(parts: Sequence[Any]) -> str:
    """`stage1.flags.learning_rate`, `stage1.datasets[0]`; a key that is no plain word is quoted."""
    text = ""
    for part in parts:
        if isinstance(part, int) and not isinstance(part, bool):
            text += f"[{part}]"
            continue
        name = part if isinstance(part, str) and _PLAIN_KEY.fullmatch(part) else json.dumps(str(part))
        text += f".{name}" if text else name
    return text


# Decimal, as everybody reads them: YAML takes 010 for eight, 1:30 for ninety and 1_0 for ten.
_PLAIN_NUMBER = re.compile(
    r"[-+]?(0|[1-9][0-9]*|[0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?|\.(inf|Inf|INF|nan|NaN|NAN))"
)
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def _traps(node: yaml.Node, path: tuple[Any, ...], seen: set[int]) -> Iterator[tuple[int, str]]:
    """What YAML takes in silence, with its line: a key that a section gives twice, a number that is another one than it looks."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBER_TAGS and not _PLAIN_NUMBER.fullmatch(node.value):
        yield (
            node.start_mark.line + 1,
            f"{key_path(path)}: {node.value} found, which YAML reads as another number; expected decimal digits; write it so, "
            "or in quotes",
        )
    if isinstance(node, yaml.MappingNode):
        lines: dict[Hashable, int] = {}
        for key, value in node.value:
            name = key.value if isinstance(key.value, Hashable) else str(key.start_mark.line)
            line = key.start_mark.line + 1
            if name in lines and name != "<<":
                yield line, f"{key_path([*path, name])} found a second time (first in line {lines[name]}); remove one"
            lines.setdefault(name, line)
            yield from _traps(value, (*path, name), seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
            yield from _traps(each, (*path, number), seen)


def _num_values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node becomes when its aliases are written out; infinite for one that holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        children = node.value if isinstance(node.value, list) else []
        flat = [each for child in children for each in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_num_values(each, known) for each in flat)
    return known[id(node)]


def _is_deep(text: str) -> bool:
    """Whether a YAML text is nested deeper than its reader, which calls itself for each section, has stack for."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return True
    return False


def _yaml_value(text: str, where: str, findings: list[str]) -> Any:
    """A YAML text as Python has it; None with a finding where it is none."""
    try:
        if _is_deep(text):
            findings.append(f"{where}: sections more than {MAX_DEPTH} deep found; expected a configuration; correct it")
            return None
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _num_values(node, {}) > MAX_NUM_VALUES:
            findings.append(
                f"{where}: more than {MAX_NUM_VALUES} values found; expected no aliases of aliases; write them out"
            )
            return None
        findings += [f"{where}:{line}: {trap}" for line, trap in _traps(node, (), set())]
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        reason = " ".join(str(error.problem or error.context).split())
        findings.append(f"{place}: not YAML ({reason}); expected keys and values; correct it")
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        findings.append(
            f"{where}: not YAML ({' '.join(str(error).split())[:200]}); expected keys and values; correct it"
        )
    return None


def _json_object(text: str, where: str, findings: list[str]) -> Any:
    """A JSON text as Python has it. Raises ValueError when it is none."""

    def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                findings.append(f"{where}: {key_path([key])} found a second time in one section; remove one")
            result[key] = value
        return result

    value = json.loads(text, object_pairs_hook=without_repetition)
    check_depth(value)
    return value


def _read_file(path: Path, findings: list[str]) -> dict[Any, Any]:
    """The sections of one file; empty with a finding where it has none. JSON first: YAML would read its 5e-06 as text."""
    try:
        text = read_input_text(path, "a configuration, for example config.yaml", "check the path").removeprefix(
            "\ufeff"
        )
    except UserError as error:
        findings.append(str(error))
        return {}
    num_findings = len(findings)
    try:
        value = _json_object(text, str(path), findings)
    except (ValueError, RecursionError):
        del findings[num_findings:]
        value = _yaml_value(text, str(path), findings)
    if not isinstance(value, dict):
        if len(findings) == num_findings:
            findings.append(f"{path}: no configuration found; expected keys and values, as in config.yaml")
        return {}
    if "__use_yte__" in value:
        findings.append(f"{path}: __use_yte__ found; expected a configuration without templates; write the values out")
        value.pop("__use_yte__")
    return value


def _entry_sections(entries: Sequence[str], findings: list[str]) -> dict[str, Any]:
    """What `--config KEY=VALUE …` says, with each value read as YAML."""
    sections: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        if key in sections:
            findings.append(f"--config {key}: found a second time; remove one")
        sections[key] = _yaml_value(text, f"--config {key}", findings)
    return sections


def merged(base: Mapping[Any, Any], overlay: Mapping[Any, Any], path: tuple[Any, ...] = ()) -> dict[Any, Any]:
    """`base` with what `overlay` says. Sections are merged key by key; all else is replaced.

    A donor's section that names its `kind` is replaced as a whole, because the kind decides which keys it has. A training's
    length replaces the length that is given in the other way.
    """
    result = dict(base)
    for key, value in overlay.items():
        old = result.get(key)
        is_replaced = path == ("donors",) and isinstance(value, Mapping) and "kind" in value
        if isinstance(value, Mapping) and isinstance(old, Mapping) and not is_replaced:
            result[key] = merged(old, value, (*path, key))
        else:
            result[key] = value
    for flag, other in _LENGTH_FLAGS.items():
        if path[-1:] == ("flags",) and overlay.get(flag) is not None and other not in overlay:
            result.pop(other, None)
    return result


def read_files(paths: Sequence[Path], entries: Sequence[str] = ()) -> tuple[dict[Any, Any], list[str]]:
    """The configuration that files and the entries of `--config` make together, and a line for each fault in them."""
    findings: list[str] = []
    config: dict[Any, Any] = {}
    for path in paths:
        config = merged(config, _read_file(path, findings))
    return merged(config, _entry_sections(entries, findings)), findings
