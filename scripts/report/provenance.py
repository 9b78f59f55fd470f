"""The files that only the report reads: the configuration in effect, lock files, Snakemake's measurements of time."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.common.errors import UserError
from scripts.common.files import sha256_of_file
from scripts.common.input_files import read_section
from scripts.common.reading import numbered_lines, parse_number, read_table, require
from scripts.common.root import ROOT
from scripts.common.settings import settings_from
from scripts.donors.settings import DonorSource

# Packages of a lock that a reader looks for first.
KEY_PACKAGES = (
    "ms-swift", "transformers", "torch", "torchvision", "accelerate", "deepspeed", "flash-attn", "modelscope",
    "vllm", "evalscope", "ms-vlmeval", "snakemake", "pandas", "numpy", "pillow",
)  # fmt: skip

# What the report reads of a configuration.
CONFIG_SECTIONS = {
    "results": str, "seed": int, "environments": dict, "donors": dict, "graft": dict, "evaluate": dict, "report": dict,
}  # fmt: skip


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
    """The configuration in effect, as scripts/workflow/save_config.py wrote it."""
    from scripts.workflow.configuration import schema_findings  # needs jsonschema, which only this environment has

    config = read_section(path)
    for key, kind in CONFIG_SECTIONS.items():
        require(config, key, kind, str(path))
    schema = yaml.safe_load((ROOT / "config/schema.yaml").read_text(encoding="utf-8"))
    for line in schema_findings(config, schema):
        if re.split(r"[.:\[]", line)[0] in CONFIG_SECTIONS.keys() - {"report"}:  # which has settings of its own
            raise UserError(f"{path}: {line}; bring the file back as it was written, or run its rule again")
    for role, donor in config["donors"].items():
        for line in settings_from(DonorSource, donor, f"donors.{role}").findings(f"donors.{role}"):
            raise UserError(f"{path}: {line}; bring the file back as it was written, or run its rule again")
    return config
