"""The files beside the weights that make the grafted directory usable without further work.

The tokenizer and generation_config.json come from the language donor, picture and video processing and the chat
template from the vision donor: the language donor's own template turns pictures into nothing. What would make a reader of
these files run a donor's code stays behind (scripts/graft/own_code.py).
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.input_files import read_input_bytes, read_input_text, read_json, read_section
from scripts.common.logger import log
from scripts.graft.own_code import code_named_in, without_code
from scripts.graft.sample_rendering import template_fault

# What AutoTokenizer reads of a byte-level BPE tokenizer; those that the language donor has are taken.
_TOKENIZER_NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)

# Patterns of every file that this module may give to a graft: what an earlier one left of them is stale.
TRAVELLING_PATTERNS = (
    *_TOKENIZER_NAMES,
    "generation_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "configuration_*.py",
    "modeling_*.py",
)

# Named in the processor's file so that AutoProcessor finds the class for a model type that transformers does not know.
_PROCESSOR_CLASS = "Qwen2_5_VLProcessor"


def read_bytes(path: Path) -> bytes:
    """The whole of a small file; an unreadable one is an error that names it."""
    return read_input_bytes(path, "a file of the donor", "fetch this file again")


def json_bytes(value: Any) -> bytes:
    """Indented JSON."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def section_without_code(path: Path) -> dict[str, Any]:
    """The keys of a JSON file that travels, without those that name code."""
    value = read_section(path)
    for key, named in code_named_in(value):
        log(f"graft: {path}: {key} names code ({named!r}), which stays behind")
    return dict(without_code(value))


def travelling_bytes(path: Path) -> bytes:
    """A donor's file as it is, or as JSON where code is named in it."""
    content = read_bytes(path)
    if path.suffix != ".json":
        return content
    section = section_without_code(path)
    return content if section == read_json(path) else json_bytes(section)


def tokenizer_files(llm_dir: Path) -> dict[str, bytes]:
    """The language donor's tokenizer, byte for byte but for a chat template inside tokenizer_config.json, and for code.

    Readers that look there first would otherwise not see chat_template.jinja.
    """
    files = {name: travelling_bytes(llm_dir / name) for name in _TOKENIZER_NAMES if os.path.lexists(llm_dir / name)}
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files.keys():
        raise UserError(
            f"{llm_dir}: neither tokenizer.json nor vocab.json and merges.txt found; expected the language donor's "
            "tokenizer, which travels with the graft; fetch this donor again"
        )
    if "tokenizer_config.json" not in files:
        raise UserError(f"{llm_dir / 'tokenizer_config.json'}: not found; fetch this donor again")
    config = json.loads(files["tokenizer_config.json"])
    if config.pop("chat_template", None) is not None:
        files["tokenizer_config.json"] = json_bytes(config)
    return files


def generation_config(llm_dir: Path, llm_config: dict[str, Any]) -> bytes:
    """The language donor's generation_config.json, or one with its token ids where it has none."""
    path = llm_dir / "generation_config.json"
    if os.path.lexists(path):
        return travelling_bytes(path)
    ids = {key: llm_config.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return json_bytes({key: value for key, value in ids.items() if value is not None})


def processor_files(vl_dir: Path) -> dict[str, bytes]:
    """The vision donor's picture (and video) processing, in the files that transformers 4 and 5 both read.

    transformers 5 saves both within processor_config.json; they are taken out of it.
    """
    files: dict[str, bytes] = {}
    sections: dict[str, dict[str, Any]] = {}
    if os.path.lexists(vl_dir / "processor_config.json"):
        sections = section_without_code(vl_dir / "processor_config.json")
    for name, key in (
        ("preprocessor_config.json", "image_processor"),
        ("video_preprocessor_config.json", "video_processor"),
    ):
        if os.path.lexists(vl_dir / name):
            section = section_without_code(vl_dir / name)
        elif isinstance(sections.get(key), dict):
            section = sections[key]
        else:
            continue
        files[name] = json_bytes({**section, "processor_class": _PROCESSOR_CLASS})
    if "preprocessor_config.json" not in files:
        raise UserError(
            f"{vl_dir}: neither preprocessor_config.json nor processor_config.json with an image_processor found; "
            "expected the vision donor's picture processing; fetch this donor again"
        )
    return files


def candidate_templates(vl_dir: Path) -> Iterator[tuple[Path, str]]:
    """The vision donor's chat templates, in the order in which transformers prefers them."""
    path = vl_dir / "chat_template.jinja"
    if os.path.lexists(path):
        yield path, read_input_text(path, "a chat template", "fetch this file again")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        path = vl_dir / name
        if os.path.lexists(path) and isinstance(template := section_without_code(path).get("chat_template"), str):
            yield path, template


def chat_template(vl_dir: Path) -> bytes:
    """The first of the vision donor's chat templates that shows pictures, videos and text."""
    faults = []
    for path, template in candidate_templates(vl_dir):
        fault = template_fault(template)
        if fault is None:
            return template.encode()
        faults.append(f"the one in {path.name} {fault}")
    found = "; ".join(faults) if faults else "none found"
    raise UserError(
        f"{vl_dir}: no chat template that shows pictures: {found}; expected Qwen2.5-VL's chat_template.json (or "
        "chat_template.jinja) there; fetch it from the published vision donor"
    )


def model_code(code_dir: Path, auto_map: dict[str, str]) -> dict[str, bytes]:
    """The source files that the configuration's auto_map names, for `trust_remote_code=True`."""
    names = sorted({reference.split(".")[0] + ".py" for reference in auto_map.values()})
    for name in names:
        if not (code_dir / name).exists():
            raise UserError(
                f"{code_dir / name}: not found, though config.json's auto_map names it; check --model-code-dir"
            )
    return {name: read_bytes(code_dir / name) for name in names}


def travelling_files(
    vl_dir: Path, llm_dir: Path, code_dir: Path, llm_config: dict[str, Any], auto_map: dict[str, str]
) -> dict[str, bytes]:
    """{name: content} of all files beside the weights, each checked; tens of megabytes at most."""
    return {
        **tokenizer_files(llm_dir),
        **processor_files(vl_dir),
        "generation_config.json": generation_config(llm_dir, llm_config),
        "chat_template.jinja": chat_template(vl_dir),
        **model_code(code_dir, auto_map),
    }
