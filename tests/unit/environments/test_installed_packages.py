"""What another environment holds is read by its own interpreter."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from scripts.common.errors import UserError
from scripts.environments.installed_packages import package_dir, versions_in

PYTHON = Path(sys.executable)


def test_versions_are_those_of_the_interpreter_asked() -> None:
    found = versions_in(PYTHON, ["snakemake"], ["pyyaml", "no-such-package"])
    assert found == {
        "python": platform.python_version(),
        "snakemake": version("snakemake"),
        "pyyaml": version("pyyaml"),
    }


def test_a_package_is_found_where_its_files_are() -> None:
    assert package_dir(PYTHON, "yaml") == Path(yaml.__file__).parent


def test_a_missing_package_and_a_missing_interpreter_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot tell what it holds \(no-such-package is not installed\)"):
        versions_in(PYTHON, ["no-such-package"])
    with pytest.raises(UserError, match=r"nothing/python: cannot tell what it holds \(No such file or directory\)"):
        versions_in(tmp_path / "nothing/python", ["snakemake"])
    with pytest.raises(
        UserError, match=r"cannot tell what it holds \(it is not installed\); expected .* no_such_module"
    ):
        package_dir(PYTHON, "no_such_module")
