"""The study's design: which runs there are, and where each one's models lie. The Snakefile and the summary read it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.common.errors import UserError
from scripts.workflow.configuration import nearest, schema_findings

# Below the results directory, with the names of Snakemake's wildcards.
PAIR = "{size}/seed{seed}"
GRAFT = f"{PAIR}/{{variant}}/{{aligner}}/graft"
STAGE1 = f"{PAIR}/{{variant}}/{{aligner}}/stage1_{{stage1_rate}}"
STAGE2 = f"{STAGE1}/stage2_{{stage2_rate}}_x{{stage2_length}}"


@dataclass(frozen=True)
class Run:
    """One way from a pair of donors to a stage 2. Runs share what they have in common: donors, grafts, stages 1."""

    size: str
    arm: str
    variant: str
    seed: int
    aligner: str
    stage1_rate: str
    stage2_rate: str
    stage2_length: str

    def path(self, results_dir: Path, pattern: str) -> Path:
        """One of the patterns above with this run's values in it."""
        return results_dir / pattern.format(**vars(self))


def runs(config: Mapping[str, Any]) -> Iterator[Run]:
    """Every run, in the configuration's order: by size, arm, variant, seed."""
    for size, of_size in config["sizes"].items():
        for arm in of_size["arms"]:
            for variant in config["variants"]:
                for seed in config["seeds"]:
                    yield Run(size, arm, variant, seed, **config["arms"][arm])


def validate(config: Mapping[str, Any], schema_path: Path) -> None:
    """Raises UserError with a line for each key that the study cannot run with."""
    findings = list(schema_findings(config, yaml.safe_load(schema_path.read_text(encoding="utf-8"))))
    if not findings:
        findings = [
            f"sizes.{size}.arms: {arm!r} found; expected a name of section arms{nearest(arm, config['arms'])}"
            for size, of_size in config["sizes"].items()
            for arm in of_size["arms"]
            if arm not in config["arms"]
        ]
    if findings:
        raise UserError("\n".join(findings))


def num_steps(config: Mapping[str, Any], size: str, stage: str, length: str = "1") -> int:
    """Steps of a stage, `length` times what the size says."""
    return round(config["sizes"][size]["num_steps"][stage] * float(length))
