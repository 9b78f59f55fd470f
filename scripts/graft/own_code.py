"""Nobody's code runs but our own: what in a model directory would run or load something else, and how it is kept out.

ms-swift loads every model with `trust_remote_code=True`, and the graft's own classes need it. Whatever a JSON file of
the directory names is run then, also from another repository. So no such name travels from a donor into a graft, and
before a directory is loaded with that trust, it is searched: of code it may name the two files that we wrote, by their sha256.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.common.input_files import read_json, read_section
from scripts.common.root import ROOT
from scripts.common.secret_values import leaves

CODE_NAME = "qwen2_5_vl_qwen3"
CODE_DIR = ROOT / "model" / CODE_NAME
CODE_FILES = (f"configuration_{CODE_NAME}.py", f"modeling_{CODE_NAME}.py")

# The graft's own, in its config.json.
AUTO_MAP = {
    "AutoConfig": f"configuration_{CODE_NAME}.Qwen2_5_VLQwen3Config",
    # vLLM's Transformers backend builds the model without its head.
    "AutoModel": f"modeling_{CODE_NAME}.Qwen2_5_VLQwen3Model",
    "AutoModelForImageTextToText": f"modeling_{CODE_NAME}.Qwen2_5_VLQwen3ForConditionalGeneration",
}

# Keys under which transformers looks for classes in Python files. A vocabulary may have a token of that name, with a number.
_CLASS_KEYS = frozenset({"auto_map", "custom_pipelines"})

# Keys that may name a kernel of a hub (`owner/name`), which transformers fetches and runs.
_KERNEL_KEYS = frozenset({
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "_experts_implementation", "_experts_implementation_internal",
})  # fmt: skip

# Files and directories that readers look for by their names, and what they do with them.
READ_BY_NAME = {
    "args.json": "ms-swift takes plugins and prompts from it",
    "adapter_config.json": "transformers adds the adapter that it describes to the weights",
    "custom_generate": "transformers runs the code in it",
}


def _is_code(key: str, value: Any) -> bool:
    texts = [text for _, text in leaves(value) if isinstance(text, str)]
    return bool(texts) if key in _CLASS_KEYS else key in _KERNEL_KEYS and any("/" in text for text in texts)


def code_named_in(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a JSON value, at any depth, that names code: (`a.b`, its value)."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if _is_code(key, part):
                yield f"{prefix}{key}", part
            else:
                yield from code_named_in(part, f"{prefix}{key}.")
    elif isinstance(value, list):
        for part in value:
            yield from code_named_in(part, prefix)


def without_code(value: Any) -> Any:
    """A JSON value without the keys that name code."""
    if isinstance(value, Mapping):
        return {key: without_code(part) for key, part in value.items() if not _is_code(key, part)}
    return [without_code(part) for part in value] if isinstance(value, list) else value


def require_own_code(directory: Path, *, with_trust: bool = True) -> None:
    """Raises UserError where loading a model directory could run or load anything but our own two files.

    One that is loaded without trust may name classes: they are not followed.
    """
    remedy = "remove it from a copy of that model, or make the directory again"
    for name, effect in READ_BY_NAME.items():
        if (directory / name).exists():
            raise UserError(f"{directory / name}: found, and {effect}; expected nothing but the model; {remedy}")
    for path in sorted(directory.glob("*.json")):
        for key, named in code_named_in(read_json(path)):
            if not with_trust and key.rpartition(".")[2] in _CLASS_KEYS:
                continue
            if (path.name, key, named) != ("config.json", "auto_map", AUTO_MAP):
                raise UserError(
                    f"{path}: {key} is {named!r}, which makes whoever loads this directory run that code; expected no code "
                    f"but that of vlgraft; {remedy}"
                )
            for code_path in (directory / name for name in CODE_FILES):
                _require_ours(code_path)


def is_trusted(directory: Path) -> bool:
    """Whether a model directory is loaded with `trust_remote_code`: where it names our code and, as is checked, no other."""
    is_own = read_section(directory / "config.json").get("auto_map") == AUTO_MAP
    if is_own:
        require_own_code(directory)
    return is_own


def _require_ours(path: Path) -> None:
    """Raises UserError unless a file of model code is the one of this repository."""
    expected = sha256_of_file(CODE_DIR / path.name)
    found = sha256_of_file(path) if path.is_file() else None
    if found != expected:
        raise UserError(
            f"{path}: {f'sha256 {found}' if found else 'nothing'} found; expected sha256 {expected}, that of "
            f"{CODE_DIR / path.name}, since loading runs this file; graft and train again with this version of vlgraft, or "
            "bring the file back"
        )
