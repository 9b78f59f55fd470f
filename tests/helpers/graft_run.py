"""A graft of tiny random donors, made by the programs of the workflow."""

import json
import subprocess
from pathlib import Path
from typing import Any

from helpers.tiny_donor_files import write_tiny_donors


def make_graft(root: Path, directory: Path, architecture: str, aligner: str, **donor_changes: Any) -> tuple[Path, Path]:
    """Makes tiny donors and their graft; returns the grafted directory and the language donor's."""
    vl_dir, llm_dir = write_tiny_donors(directory / "donors", **donor_changes)
    return graft_donors(root, vl_dir, llm_dir, directory / "graft", architecture, aligner), llm_dir


def graft_donors(root: Path, vl_dir: Path, llm_dir: Path, output_dir: Path, architecture: str, aligner: str) -> Path:
    """Runs both programs by hand, as README and docs say; returns `output_dir`."""
    settings = {
        "architecture": architecture,
        "aligner": aligner,
        "calibration": "none",
        "max_shard_gb": 1e-4,
        "link": "auto",
    }
    python = root / ".venv/bin/python"
    common: list[str | Path] = ["--vl-dir", vl_dir, "--llm-dir", llm_dir, "--settings", json.dumps(settings)]
    derive = [python, "scripts", "graft.derive_config", *common, "--output", output_dir / "config.json"]
    subprocess.run(derive, cwd=root, check=True)
    code: list[str | Path] = [
        "--model-config",
        output_dir / "config.json",
        "--model-code-dir",
        "model/qwen2_5_vl_qwen3",
        "--seed",
        "0",
    ]
    subprocess.run([python, "scripts", "graft.graft", *common, *code, "--output-dir", output_dir], cwd=root, check=True)
    return output_dir
