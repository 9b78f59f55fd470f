"""Checks that the files beside a donor's weights can be used, before anything is made of the donor.

A tokenizer, generation settings or picture processing that nobody can use, or that does not go with the weights, would be
found after a training, or never (scripts/donors/usable_files.py says what is tried). The record is written if all is well.

By hand: .venv/bin/python scripts donors.check_donor --config config/demo.yaml --role llm
"""

import argparse
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import sha256_of_file
from scripts.common.input_files import read_section
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.reading import write_sealed
from scripts.donors.checksums import check_still_recorded
from scripts.donors.manifest import read_manifest_of
from scripts.donors.safetensors_files import read_checkpoint
from scripts.donors.usable_files import usability_faults


@dataclass(frozen=True)
class CheckedDonor:
    """The record that a donor's files can be used, and by which version of transformers."""

    manifest_sha256: str
    transformers: str


def num_embedding_rows(role: str, config_path: Path) -> int:
    """vocab_size of a config.json; that of a vision donor may stand in its text_config."""
    config = read_section(config_path)
    text_config = config.get("text_config") if role == "vl" else None
    found = (config | text_config if isinstance(text_config, dict) else config).get("vocab_size")
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise UserError(
            f"{config_path}: vocab_size is {found!r}; expected a positive whole number; fetch this file again"
        )
    return found


def check_embedding(role: str, directory: Path) -> int:
    """The rows of the embedding; raises UserError where config.json and the weights say otherwise of them."""
    stated = num_embedding_rows(role, directory / "config.json")
    embeddings = [
        tensor
        for name, tensor in read_checkpoint(directory).items()
        if name.endswith("embed_tokens.weight") and tensor.shape
    ]
    for tensor in embeddings:
        if tensor.shape[0] != stated:
            raise UserError(
                f"{directory / 'config.json'}: vocab_size is {stated}, but {tensor.name} has {tensor.shape[0]} rows; expected "
                "one number; fetch this donor's files again"
            )
    return stated


def check_donor(role: str, directory: Path, manifest_path: Path) -> CheckedDonor:
    """Raises UserError where a file of the recorded donor cannot be used."""
    check_still_recorded(directory, read_manifest_of(role, manifest_path).files, manifest_path)
    if faults := usability_faults(directory, role, check_embedding(role, directory)):
        raise UserError(f"{faults[0]}; fetch this donor's files again, or give another donor")
    return CheckedDonor(sha256_of_file(manifest_path), version("transformers"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--role", required=True, choices=("llm", "vl"))
    parser.add_argument("--dir", required=True, type=Path, help="where the donor lies")
    parser.add_argument("--manifest", required=True, type=Path, help="its manifest")
    parser.add_argument("--output", required=True, type=Path, help="the record to write if all is well")
    arguments = parser.parse_args()
    with owned(arguments.output, inputs=[arguments.manifest, arguments.dir]):
        checked = check_donor(arguments.role, arguments.dir, arguments.manifest)
        write_sealed(arguments.output, asdict(checked))
        log(f"{arguments.dir}: the files beside its weights can be used")


if __name__ == "__main__":
    run_program(main)
