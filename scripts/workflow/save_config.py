"""Saves the configuration in effect (files and command line together) beside the results.

By hand: .venv/bin/python scripts workflow.save_config --config config/demo.yaml
"""

import argparse
from pathlib import Path

from scripts.common.errors import UserError, run_program
from scripts.common.files import write_json_atomically
from scripts.common.json_text import json_value
from scripts.common.ownership import owned
from scripts.common.secret_values import secret_findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--configuration", type=json_value, required=True, help="the whole configuration as JSON")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if secrets := secret_findings(arguments.configuration):
        raise UserError(secrets[0])
    with owned(arguments.output):
        write_json_atomically(arguments.output, arguments.configuration)


if __name__ == "__main__":
    run_program(main)
