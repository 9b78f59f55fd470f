"""The workflow is used as a Snakemake module from another directory, which has a folder `scripts` of its own."""

import os
import subprocess
from pathlib import Path

import pytest

from helpers.workflow_run import planned_rules

SNAKEFILE = """
import sys
sys.path.insert(0, ".")
from scripts.common.errors import OWN

configfile: "{configfile}"

module vlgraft:
    snakefile: "{root}/Snakefile"
    config: config

use rule * from vlgraft

rule own:
    default_target: True
    input: rules.all.input
    output: "own.txt"
    shell: "touch {{output}}"

rule check_own:
    output: "checked.txt"
    run:
        from scripts.common import errors
        open(output[0], "w").write(errors.OWN + ", " + OWN)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Somebody else's workflow, with a package that has the name of ours and modules of the same names."""
    (tmp_path / "scripts/common").mkdir(parents=True)
    (tmp_path / "scripts/__init__.py").touch()
    (tmp_path / "scripts/common/__init__.py").touch()
    (tmp_path / "scripts/common/errors.py").write_text("OWN = 'their own'\n")
    return tmp_path


def run(root: Path, directory: Path, config: str, *arguments: str) -> str:
    """What Snakemake prints, started in `directory` by a Snakefile that uses ours."""
    (directory / "Snakefile").write_text(SNAKEFILE.format(root=root, configfile=root / config))
    command = [root / ".venv/bin/snakemake", "--cores", "2", *arguments]
    environment = {**os.environ, "PATH": f"{root / '.venv/bin'}:{os.environ['PATH']}"}
    finished = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


def test_the_full_recipe_is_planned_from_another_directory(root: Path, directory: Path) -> None:
    planned = planned_rules(run(root, directory, "config.yaml", "-n"))
    assert {"own", "donor", "graft", "fidelity", "stage1", "stage2", "evaluate", "table", "report"} <= planned


def test_programs_run_from_another_directory_and_write_there(root: Path, directory: Path) -> None:
    run(root, directory, "config/demo.yaml", "results/demo/config.json", "resources/data/digits/test.tsv")
    assert (directory / "results/demo/config.json").exists()
    assert (directory / "resources/data/digits/images").is_dir()
    assert not (directory / ".venvs").exists()


def test_the_modules_of_the_caller_stay_its_own(root: Path, directory: Path) -> None:
    run(root, directory, "config.yaml", "check_own")
    assert (directory / "checked.txt").read_text() == "their own, their own"
