"""Writes the grafted model without its weights: what says how texts and pictures become tokens.

Why: rows are checked by the training's own encoding (scripts/data/check_dataset.py), which needs tokenizer, processor and chat
template, but no weights: it can begin before the graft.

By hand: .venv/bin/python scripts graft.write_model_files --config config/demo.yaml
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.files import write_bytes_atomically
from scripts.common.input_files import read_section
from scripts.common.ownership import owned
from scripts.graft.donor_configs import read_language_donor
from scripts.graft.picture_processing import check_processing_files
from scripts.graft.preparation import check_output_dir
from scripts.graft.travelling_files import TRAVELLING_PATTERNS, travelling_files

CONFIG_NAME = "config.json"  # written last: where it is, the others are


def model_files(vl_dir: Path, llm_dir: Path, code_dir: Path, config_path: Path) -> dict[str, bytes]:
    """{name: content} of what the graft will have beside its weights, config.json the last."""
    config = read_section(config_path)
    llm = read_language_donor(llm_dir)
    files = travelling_files(vl_dir, llm_dir, code_dir, dict(llm.values), config.get("auto_map", {}))
    check_processing_files(files, vl_dir)
    return {**files, CONFIG_NAME: config_path.read_bytes()}


def write_files(files: Mapping[str, bytes], directory: Path) -> None:
    """Writes the files, in their order; those of an earlier run go first."""
    for pattern in (CONFIG_NAME, *TRAVELLING_PATTERNS):
        for path in directory.glob(pattern):
            path.unlink()
    for name, content in files.items():
        write_bytes_atomically(directory / name, content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vl-dir", type=Path, required=True, help="vision donor (Qwen2.5-VL)")
    parser.add_argument("--llm-dir", type=Path, required=True, help="language donor (Qwen3)")
    parser.add_argument("--model-config", type=Path, required=True, help="config.json made by derive_config.py")
    parser.add_argument("--model-code-dir", type=Path, required=True, help="source of the grafted architecture")
    parser.add_argument("--output-dir", type=Path, required=True, help="directory to write them to")
    arguments = parser.parse_args()
    donors = (arguments.vl_dir, arguments.llm_dir)
    check_output_dir(arguments.output_dir, donors)
    with owned(arguments.output_dir, inputs=[*donors, arguments.model_config]):
        files = model_files(*donors, arguments.model_code_dir, arguments.model_config)
        write_files(files, arguments.output_dir)


if __name__ == "__main__":
    run_program(main)
