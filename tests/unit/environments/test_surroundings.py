"""Programs run on other people's machines, or say in one line what they lack: each is started under that condition."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from helpers.other_machines import NAMELESS_UID, by_nameless_user, lines_of, read_only, with_mount
from scripts.environments.surroundings import MAX_TMPDIR_BYTES, cleaned

# Prints what a program, and its children, find.
CHILD = "import getpass, json, locale, os, pathlib, sys; print(json.dumps({**os.environ, 'user': getpass.getuser(), \
'home': str(pathlib.Path.home()), 'encoding': open('/dev/null').encoding, 'path': sys.path}))"
ENTER = f"""
import subprocess, sys
sys.path.insert(0, ROOT := sys.argv[1])
from scripts.common.errors import run_program
from scripts.environments.surroundings import enter
run_program(lambda: enter("train.train"))
import json
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
"""


@pytest.fixture
def program(root: Path, tmp_path: Path) -> Path:
    """A program that enters as ours do, and then asks a child what it has inherited."""
    path = tmp_path / "program.py"
    path.write_text(ENTER)
    return path


def run(
    root: Path, program: Path, variables: Mapping[str, str | None], before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Starts it in an empty directory; a variable that is None is not set."""
    environment = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    directory = program.parent / "run"
    directory.mkdir(exist_ok=True)
    command = [*before, sys.executable, str(program), str(root)]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)


def found(root: Path, program: Path, variables: Mapping[str, str | None], before: Sequence[str] = ()) -> dict[str, str]:
    finished = run(root, program, variables, before)
    assert (finished.returncode, finished.stderr) == (0, "")
    return dict(json.loads(finished.stdout))


def refusal(root: Path, program: Path, variables: Mapping[str, str | None], before: Sequence[str] = ()) -> str:
    finished = run(root, program, variables, before)
    assert (finished.returncode, finished.stdout) == (1, ""), finished.stderr
    (line,) = lines_of(finished)
    return line


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/tmp", "error: work: no training found there; expected the work directory of"),
        ("/nonexistent", "error: TMPDIR: /nonexistent cannot"),
    ],
)
def test_every_program_enters(root: Path, tmp_path: Path, directory: str, expected: str) -> None:
    command = [sys.executable, str(root / "scripts"), "train.show_status"]
    environment = os.environ | {"TMPDIR": directory}
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 1 and finished.stderr.startswith(expected)


def test_nobody_is_a_rank_of_somebody_elses_training(root: Path, program: Path) -> None:
    ranks = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "elsewhere", "MASTER_PORT": "29500"}
    launchers = {"TORCHELASTIC_RUN_ID": "1", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "NPROC_PER_NODE": "8"}
    inherited = found(root, program, {**ranks, **launchers, "SLURM_JOB_ID": "17"})
    assert not {*ranks, *launchers} & inherited.keys()
    assert inherited["SLURM_JOB_ID"] == "17"


def test_the_packages_of_another_python_are_not_seen(root: Path, program: Path, tmp_path: Path) -> None:
    (tmp_path / "module").mkdir()
    (tmp_path / "module/json.py").write_text("raise SystemExit('of another Python')")
    modules = {"PYTHONPATH": str(tmp_path / "module"), "PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "ascii"}
    inherited = found(root, program, modules)
    assert not modules.keys() & inherited.keys()
    assert str(tmp_path / "module") not in inherited["path"]


def test_text_is_utf_8_in_whatever_locale(root: Path, program: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert found(root, program, plain)["encoding"].lower() == "utf-8"


def test_a_user_id_without_a_name_and_a_home_gets_both(root: Path, program: Path) -> None:
    nobody = {"HOME": None, "USER": None, "LOGNAME": None, "LNAME": None, "USERNAME": None}
    inherited = found(root, program, nobody, by_nameless_user())
    assert inherited["user"] == f"uid{NAMELESS_UID}"
    assert inherited["home"] == str(program.parent / "run/.cache/home")
    assert Path(inherited["home"]).is_dir()


def test_a_home_that_cannot_be_written_is_not_used_but_its_token_is(root: Path, program: Path, tmp_path: Path) -> None:
    token_path = tmp_path / "home/.cache/huggingface/token"
    token_path.parent.mkdir(parents=True)
    token_path.write_text("secret")
    inherited = found(root, program, {"HOME": str(tmp_path / "home")}, read_only(tmp_path / "home"))
    assert inherited["home"] == str(program.parent / "run/.cache/home")
    assert inherited["HF_TOKEN_PATH"] == str(token_path)


def test_a_home_that_is_there_stays(root: Path, program: Path, tmp_path: Path) -> None:
    assert found(root, program, {"HOME": str(tmp_path)})["home"] == str(tmp_path)


def test_without_a_home_and_a_directory_to_write_in_it_says_so(root: Path, program: Path) -> None:
    (program.parent / "run").mkdir()
    line = refusal(root, program, {"HOME": "/nonexistent"}, read_only(program.parent))
    assert line.startswith("error: HOME: cannot be written, and neither can ") and "Read-only file system" in line


def test_requests_to_our_own_servers_take_no_proxy(root: Path, program: Path) -> None:
    inherited = found(
        root, program, {"HTTP_PROXY": "http://proxy:3128", "no_proxy": "site.org,localhost", "NO_PROXY": None}
    )
    assert inherited["no_proxy"] == inherited["NO_PROXY"] == "site.org,localhost,127.0.0.1,::1"
    assert inherited["HTTP_PROXY"] == "http://proxy:3128"


def test_without_a_proxy_nothing_is_added() -> None:
    assert "no_proxy" not in cleaned({"PATH": "/bin"})
    assert cleaned({"https_proxy": "http://proxy", "NO_PROXY": "*"})["NO_PROXY"] == "*"


def test_a_tmpdir_that_is_not_there_is_refused(root: Path, program: Path, tmp_path: Path) -> None:
    line = refusal(root, program, {"TMPDIR": str(tmp_path / "missing")})
    assert line.startswith(f"error: TMPDIR: {tmp_path}/missing cannot be written (No such file or directory); expected")


def test_a_tmpdir_that_cannot_be_written_is_refused(root: Path, program: Path, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    line = refusal(root, program, {"TMPDIR": str(tmp_path / "t")}, with_mount(tmp_path / "t", "ro"))
    assert f"TMPDIR: {tmp_path}/t cannot be written (Read-only file system)" in line


def test_a_tmpdir_that_is_full_is_refused(root: Path, program: Path, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    line = refusal(root, program, {"TMPDIR": str(tmp_path / "t")}, with_mount(tmp_path / "t", "size=8k"))
    assert f"TMPDIR: {tmp_path}/t cannot be written (No space left on device)" in line


def test_a_tmpdir_too_long_for_sockets_is_refused(root: Path, program: Path) -> None:
    directory = program.parent / ("x" * MAX_TMPDIR_BYTES)
    directory.mkdir()
    line = refusal(root, program, {"TMPDIR": str(directory)})
    assert f"has {len(str(directory))} characters; expected at most {MAX_TMPDIR_BYTES}" in line


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("ro", "/dev/shm: cannot be written (Read-only file system)"),
        ("size=1m", "/dev/shm: 1 MiB free; expected at least"),
    ],
)
def test_without_shared_memory_nothing_is_trained(root: Path, program: Path, options: str, reason: str) -> None:
    assert reason in refusal(root, program, {}, with_mount("/dev/shm", options))


def test_snakemake_with_the_packages_of_another_python_says_so(root: Path, tmp_path: Path) -> None:
    (tmp_path / "yaml").symlink_to(next(Path(sys.prefix).glob("lib/*/site-packages/yaml")))
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "config/demo.yaml"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    said = subprocess.run(
        command, cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    assert said.returncode == 1
    assert f"PYTHONPATH: yaml was loaded from {tmp_path}/yaml/__init__.py; expected the one of this" in said.stdout
