"""Writes the model card of a stage's checkpoint, README.md beside the weights, from the files of the run.

It holds the donors with their licenses, what the graft kept of them, how each stage was trained, the scores with their
intervals, and how to load the model; front matter as the hubs read it. A license is what the donors' own files state, or
"unknown". The card names no path of this machine. The donors' LICENSE and NOTICE files are copied beside it (LICENSE.vl,
LICENSE.llm).

It is made after the scores and is no part of what identifies a model (scripts/donors/model_files.py), so nothing is remade
because of it.

By hand: .venv/bin/python scripts upload.make_model_card --config config/demo.yaml --stage stage2
"""

import argparse
from pathlib import Path

from scripts.common.errors import run_program
from scripts.common.files import write_text_atomically
from scripts.common.logger import log
from scripts.common.ownership import owned
from scripts.common.settings import json_settings
from scripts.report.commit import Commit, current_commit
from scripts.upload.card import render
from scripts.upload.inputs import read_card_inputs
from scripts.upload.licenses import copy_license_files
from scripts.upload.settings import CardSettings
from scripts.workflow.layout import STAGES


def make(stage: str, settings: CardSettings, commit: Commit) -> Path:
    """Writes the card, whole or not at all, and returns its path. Raises UserError naming the faulty file."""
    inputs = read_card_inputs(stage, settings, commit)
    text = render(inputs)
    card_path = inputs.checkpoint_dir / "README.md"
    with owned(inputs.checkpoint_dir):
        for view in inputs.donors:
            copy_license_files(view.directory, view.donor.role, inputs.checkpoint_dir)
        write_text_atomically(card_path, text)
        card_path.chmod(0o644)  # whatever the umask: it is made to be published
    return card_path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument(
        "--configuration", required=True, type=json_settings(CardSettings, "configuration"), help="JSON"
    )
    arguments = parser.parse_args()
    card_path = make(arguments.stage, arguments.configuration, current_commit())
    log(f"{card_path}: {len(card_path.read_text(encoding='utf-8').splitlines())} lines")


if __name__ == "__main__":
    run_program(main)
