"""The Python that the environments are made with: the newest of those that serve, or one line that says what is needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = ("sh", "awk", "grep", "tail", "sed", "dirname", "mkdir", "sha256sum", "cat", "make")
# Answers as a Python of that version does when it is asked for it, and has no modules.
OLD_PYTHON = """\
#!/bin/sh
case "$2" in
    *platform*) echo "python3 is 3.9.18" ;;
    *) echo "Error: it is an old Python" >&2; exit 1 ;;
esac
"""
# What a version manager leaves in the PATH for a version that is not active.
SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"


@pytest.fixture
def machine(root: Path, tmp_path: Path) -> Path:
    """A checkout on a machine whose only commands are in `bin`."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    shutil.copytree(root / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "envs", tmp_path / "envs")
    shutil.copy(root / "Makefile", tmp_path)
    return tmp_path


def command(machine: Path, name: str, text: str) -> None:
    (machine / "bin" / name).write_text(text)
    (machine / "bin" / name).chmod(0o755)


def serving(machine: Path, name: str) -> None:
    command(machine, name, f'#!/bin/sh\nexec {sys.executable} "$@"\n')


def run(machine: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(machine / "bin"), "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(words, cwd=machine, env=environment, capture_output=True, text=True)


def find_python(machine: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(machine, "sh", "scripts/environments/find_python.sh", **variables)


def test_the_newest_that_serves_is_taken(machine: Path) -> None:
    command(machine, "python3.13", SHIM)
    serving(machine, "python3.12")
    serving(machine, "python3.11")
    command(machine, "python3", OLD_PYTHON)
    assert find_python(machine).stdout == "python3.12\n"
    serving(machine, "python3.13")
    assert find_python(machine).stdout == "python3.13\n"


def test_python3_is_taken_if_it_is_new_enough(machine: Path) -> None:
    serving(machine, "python3")
    assert find_python(machine).stdout == "python3\n"


@pytest.mark.parametrize(("has_python3", "found"), [(True, "python3 is 3.9.18"), (False, "no python3")])
def test_an_old_python_alone_ends_in_one_line_that_says_what_is_needed(
    machine: Path, has_python3: bool, found: str
) -> None:
    if has_python3:
        command(machine, "python3", OLD_PYTHON)
    finished = run(machine, "make", ".venv/ok")
    assert finished.returncode != 0
    (error,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: {found}, and uv could not fetch another (")
    assert "expected Python 3.11, 3.12 or 3.13" in error and "make PYTHON=/path/to/python3.12" in error
    assert not (machine / ".venv").exists()


def test_a_python_that_is_named_is_taken_or_refused(machine: Path) -> None:
    serving(machine, "python3")
    serving(machine, "mine")
    assert find_python(machine, PYTHON="mine").stdout == "mine\n"
    refused = run(machine, "make", ".venv/ok", "PYTHON=/nonexistent/python")
    assert refused.returncode != 0
    assert "error: PYTHON=/nonexistent/python: does not run" in refused.stderr


@pytest.mark.needs_network
def test_a_python_that_uv_has_fetched_is_taken(machine: Path) -> None:
    """The fetching itself asks GitHub; a stand-in lies where uv would put it."""
    command(machine, "python3", OLD_PYTHON)
    fetched = machine / ".venvs/python/cpython-3.13.9-linux-x86_64-gnu/bin/python3"
    fetched.parent.mkdir(parents=True)
    fetched.symlink_to(sys.executable)
    assert find_python(machine).stdout == ".venvs/python/cpython-3.13.9-linux-x86_64-gnu/bin/python3\n"


def test_a_workflow_environment_of_this_lock_is_left_alone_whatever_the_dates(machine: Path) -> None:
    (machine / ".venv/bin").mkdir(parents=True)
    (machine / ".venv/bin/python").symlink_to("/bin/true")
    summed = run(machine, "sha256sum", "envs/workflow.lock").stdout
    (machine / ".venv/ok").write_text(summed)
    os.utime(machine / ".venv/ok", (0, 0))
    finished = run(machine, "make", ".venv/ok")
    assert (finished.returncode, finished.stderr) == (0, "")
    (machine / "envs/workflow.lock").write_text("another==1.0\n")
    assert "error: no python3" in run(machine, "make", ".venv/ok").stderr


@pytest.mark.needs_network
def test_the_workflow_environment_is_built_in_a_fresh_checkout(machine: Path, root: Path) -> None:
    """With another lock, of one package, and settings of pip that would put it elsewhere."""
    lines = (root / "envs/workflow.lock").read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("iniconfig=="))
    end = next(number for number in range(begin + 1, len(lines)) if not lines[number].startswith(" "))
    (machine / "envs/workflow.lock").write_text("\n".join(lines[begin:end]) + "\n")
    serving(machine, "python3")
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    elsewhere = {"PIP_TARGET": str(machine / "elsewhere"), "PIP_USER": "1", "PYTHONPATH": str(machine / "tests")}
    finished = run(machine, "make", ".venv/ok", **kept, **elsewhere)
    assert finished.returncode == 0, finished.stderr
    assert (machine / ".venv").resolve().parent == machine / ".venvs"
    assert list((machine / ".venv").glob("lib/*/site-packages/iniconfig"))
    assert run(machine, "make", ".venv/ok").stderr == ""
