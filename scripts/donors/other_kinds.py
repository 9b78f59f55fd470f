"""Directories that hold a model in another form than donors have, with what to do for each form."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.common.errors import UserError

CONFIG_NAME = "config.json"
_LFS_START = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class OtherKind:
    """A form, the sign of it in a directory (None: it is not there), and the remedy."""

    name: str
    sign: Callable[[Path], str | None]
    remedy: str


def _first(directory: Path, pattern: str) -> str | None:
    return next((path.name for path in sorted(directory.glob(pattern))), None)


def _without_safetensors(*patterns: str) -> Callable[[Path], str | None]:
    """The first file of these patterns, where there are no weights as safetensors."""

    def sign(directory: Path) -> str | None:
        if _first(directory, "*.safetensors"):
            return None
        return next((name for pattern in patterns if (name := _first(directory, pattern))), None)

    return sign


def _adapter(directory: Path) -> str | None:
    return "adapter_config.json" if (directory / "adapter_config.json").exists() else None


def _hub_cache(directory: Path) -> str | None:
    """As huggingface_hub keeps a repository: the checkpoint of each revision lies in a directory of its own."""
    if (directory / CONFIG_NAME).exists() or not (directory / "snapshots").is_dir():
        return None
    found = sorted(path for path in (directory / "snapshots").iterdir() if (path / CONFIG_NAME).exists())
    return str(found[-1]) if found else "snapshots"


def _one_below(directory: Path) -> str | None:
    if (directory / CONFIG_NAME).exists():
        return None
    found = sorted(path.parent for path in directory.glob(f"*/{CONFIG_NAME}"))
    return str(found[0]) if len(found) == 1 else None


def _pointer(directory: Path) -> str | None:
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.stat().st_size < 1024:
            with open(path, "rb") as file:
                if file.read(len(_LFS_START)) == _LFS_START:
                    return path.name
    return None


def _quantised(directory: Path) -> str | None:
    if not (directory / CONFIG_NAME).is_file():  # a pipe would never end
        return None
    try:
        config = json.loads((directory / CONFIG_NAME).read_bytes())
        method = config["quantization_config"].get("quant_method", "of some kind")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # another check says what is wrong with the file
    return f"quantization_config ({method}) in {CONFIG_NAME}"


# In the order in which they are looked for.
OTHER_KINDS: Sequence[OtherKind] = (
    OtherKind("a hub's cache", _hub_cache, "give the directory of one revision, below `snapshots`"),
    OtherKind("a git-lfs pointer in a file's place", _pointer, "run `git lfs pull` there, or download the files themselves"),
    OtherKind(
        "an adapter (LoRA)", _adapter,
        "merge it into its base model first (`swift export --adapters DIR --merge_lora true`), and give the merged model",
    ),
    OtherKind(
        "weights for llama.cpp", _without_safetensors("*.gguf"),
        "take the model's repository for transformers, with *.safetensors",
    ),
    OtherKind(
        "weights as pickles, which may run code", _without_safetensors("*.bin", "*.pth", "*.pt"),
        "take a revision with *.safetensors, or save the model with transformers (`save_pretrained`) first",
    ),
    OtherKind(
        "a checkpoint of Megatron", _without_safetensors("latest_checkpointed_iteration.txt"),
        "convert it to the form of transformers first (`swift export --to_hf true`)",
    ),
    OtherKind("quantised weights", _quantised, "take the donor's unquantised repository: the graft copies tensors as they are"),
    OtherKind("a directory with the model in a directory below", _one_below, "give that directory"),
)  # fmt: skip


def require_usual_kind(directory: Path, where: str) -> None:
    """Raises UserError where a directory holds a model in another form; `where` is the key that names it."""
    if directory.is_file():
        raise UserError(
            f"{directory}: a file found; expected the checkpoint directory of {where}; give {directory.parent}"
        )
    if not directory.is_dir():
        raise UserError(
            f"{directory}: not found; expected the checkpoint directory of {where}; check the path in the config"
        )
    for kind in OTHER_KINDS:
        if (sign := kind.sign(directory)) is not None:
            raise UserError(
                f"{directory}: {kind.name} found ({sign}); expected the checkpoint directory of {where}, with {CONFIG_NAME} and "
                f"*.safetensors; {kind.remedy}"
            )
