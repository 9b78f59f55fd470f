"""Reading what the other programs wrote, each file checked for the fields that the page needs.

A file that is missing, cut off or lacks a field raises UserError with its name: a page must not be made from half of
the inputs.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.common.reading import numbered_lines, parse_number, read_table

LEDGER_COLUMNS = ("name", "donor", "policy", "bytes", "reason")

# Packages of a lock that a reader looks for first.
KEY_PACKAGES = (
    "ms-swift", "transformers", "torch", "torchvision", "accelerate", "deepspeed", "flash-attn", "modelscope",
    "vllm", "evalscope", "ms-vlmeval", "snakemake", "pandas", "numpy", "pillow",
)  # fmt: skip
_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Lock:
    """A lock file: its hash, how many packages it pins, and the ones that a reader looks for."""

    name: str
    sha256: str
    num_packages: int
    key_versions: dict[str, str]


def read_step_time(path: Path) -> float:
    """Seconds of a step's last run, from the file of Snakemake's `benchmark` directive."""
    rows = read_table(path, ("s",), "\t", "a benchmark of Snakemake")
    if len(rows) != 1:
        raise UserError(
            f"{path}: {len(rows)} rows found; expected one below the header; delete it and run its step again"
        )
    return float(parse_number(rows[0], "s", float, f"{path}: row 2"))


def read_lock(path: Path) -> Lock:
    """A lock file as `uv pip compile` writes it."""
    text = "\n".join(line for _, line in numbered_lines(path, "a lock file", written_by_a_program=False))
    pins = dict(re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", text, flags=re.MULTILINE))
    return Lock(
        name=path.name,
        sha256=sha256_of_file(path),
        num_packages=len(pins),
        key_versions={name: pins[name] for name in KEY_PACKAGES if name in pins},
    )


def read_config(path: Path) -> dict[str, Any]:
    """The effective config, YAML or JSON."""
    text = "\n".join(line for _, line in numbered_lines(path, "the effective config", written_by_a_program=False))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: neither YAML nor JSON ({reason}); make it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: {type(value).__name__} found; expected keys and values; make it again")
    return value


def md5_of_file(path: Path) -> str:
    """md5 of the file's bytes: benchmarks are published with it."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
