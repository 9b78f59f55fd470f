"""An environment is built beside the one in use, once, and only where its lock is another. What is installed here is one file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.other_machines import read_only
from helpers.processes import LIMIT_S, wait_for
from scripts.common.errors import UserError
from scripts.environments.building import Build, Place, build_beside, users_of
from scripts.environments.marker import is_of

# Builds in a process of its own: STORE LOCK, and a file whose appearance ends the build, or nothing.
PROGRAM = """
import sys
from pathlib import Path
from scripts.common.errors import run_program
from scripts.environments.building import Build, Place, build_beside

store, lock, awaited = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]


def install(build: Build) -> None:
    build.run([sys.executable, "-m", "venv", "--without-pip", "--clear", build.directory], {}, "no advice")
    (store / "begun").touch()
    build.run(["sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.05; done', awaited], {}, "no advice")


run_program(lambda: build_beside(Place(store / "train", store, "train", [lock], store / "train.ok"), install))
"""


@dataclass(frozen=True)
class Environments:
    """A directory like .venvs, and a lock that is the text of the one module in the environment `train`."""

    store_dir: Path
    lock_path: Path

    @property
    def place(self) -> Place:
        return Place(
            self.store_dir / "train", self.store_dir, "train", [self.lock_path], self.store_dir / "train.ok"
        )  # fmt: skip

    def build(self) -> None:
        build_beside(self.place, self.install)

    def install(self, build: Build) -> None:
        build.run([sys.executable, "-m", "venv", "--without-pip", "--clear", build.directory], {}, "no advice")
        (packages_dir,) = build.directory.glob("lib/*/site-packages")
        (packages_dir / "late.py").write_text(self.lock_path.read_text())

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.store_dir.iterdir() if not path.name.startswith(".")}

    def shown_by(self, code: str) -> str:
        command = [self.place.link / "bin/python", "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def command(self, root: Path, awaited: Path) -> list[str | Path]:
        return [sys.executable, "-c", PROGRAM, self.store_dir, self.lock_path, awaited]


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    """One that is built, whose module `late` says that it is the first."""
    lock_path = tmp_path / "envs/train.lock"
    lock_path.parent.mkdir()
    lock_path.write_text("version = 'first'\n")
    made = Environments(tmp_path / "venvs", lock_path)
    made.build()
    return made


@contextmanager
def started(root: Path, command: list[str | Path]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


def test_an_environment_is_a_link_to_a_directory_named_by_its_lock(environments: Environments) -> None:
    (directory,) = environments.place.directories
    assert environments.names == {"train", "train.ok", directory.name}
    assert environments.place.link.is_symlink() and environments.place.link.resolve() == directory
    assert is_of(environments.place.marker_path, [environments.lock_path])
    assert environments.shown_by("import late; print(late.version)") == "first"


@pytest.mark.parametrize("seconds_later", [-10_000, 10_000])
def test_a_lock_of_the_same_content_leaves_it_alone_whatever_its_date(
    environments: Environments, seconds_later: int
) -> None:
    before = {path: path.lstat().st_mtime_ns for path in environments.store_dir.rglob("*")}
    moment = time.time() + seconds_later
    os.utime(environments.lock_path, (moment, moment))
    build_beside(environments.place, pytest.fail)
    assert before == {path: path.lstat().st_mtime_ns for path in environments.store_dir.rglob("*")}


def test_what_runs_in_the_old_one_goes_on_in_it(root: Path, environments: Environments) -> None:
    code = "print(flush=True); input(); import late, subprocess, sys; print(late.version, flush=True)"
    code += "; subprocess.run([sys.executable, '-c', 'import late; print(late.version)'])"
    with started(root, [environments.place.link / "bin/python", "-c", code]) as job:
        old_dir = environments.place.link.resolve()
        environments.lock_path.write_text("version = 'second'\n")
        assert job.stdout is not None
        job.stdout.readline()
        environments.build()
        assert environments.shown_by("import late; print(late.version)") == "second"
        assert job.communicate("\n", timeout=LIMIT_S)[0] == "first\nfirst\n"
    assert old_dir.exists() and len(environments.place.directories) == 2


def test_an_old_directory_is_named_for_removal(environments: Environments, capfd: pytest.CaptureFixture[str]) -> None:
    old_dir = environments.place.link.resolve()
    environments.lock_path.write_text("version = 'second'\n")
    environments.build()
    assert f"{old_dir}: no longer used by new jobs; remove it when nothing runs in it: rm -r {old_dir}" in (
        capfd.readouterr().err
    )


def test_a_marker_that_was_removed_has_it_built_again_beside(environments: Environments) -> None:
    old_dir = environments.place.link.resolve()
    environments.place.marker_path.unlink()
    environments.build()
    assert environments.place.link.resolve() == old_dir.with_name(f"{old_dir.name}-2") and old_dir.exists()


def test_a_build_that_fails_leaves_everything_as_it_was(environments: Environments) -> None:
    def fail(build: Build) -> None:
        environments.install(build)
        build.run(["false"], {}, "try something else")

    names, link = environments.names, environments.place.link.resolve()
    marker = environments.place.marker_path.read_text()
    environments.lock_path.write_text("version = 'second'\n")
    with pytest.raises(UserError, match=r"train.lock: `false` ended with status 1; .*try something else, then run"):
        build_beside(environments.place, fail)
    assert (environments.names, environments.place.link.resolve()) == (names, link)
    assert environments.place.marker_path.read_text() == marker


def test_a_build_that_was_killed_is_begun_anew_and_its_command_is_gone(
    root: Path, environments: Environments, tmp_path: Path
) -> None:
    environments.lock_path.write_text("version = 'second'\n")
    with started(root, environments.command(root, tmp_path / "never")) as build:
        wait_for((environments.store_dir / "begun").exists, "the second command of the build")
        (command,) = wait_for_children(build.pid)
        build.send_signal(signal.SIGKILL)
        build.wait(LIMIT_S)
    wait_for(lambda: not Path(f"/proc/{command}").exists(), "the end of its command")
    assert environments.shown_by("import late; print(late.version)") == "first"
    environments.build()
    assert environments.shown_by("import late; print(late.version)") == "second"
    assert len(environments.place.directories) == 2


def wait_for_children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(lambda: bool(path.read_text().split()), "a child")
    return [int(child) for child in path.read_text().split()]


def test_a_second_build_waits_says_for_whom_and_builds_nothing(
    root: Path, environments: Environments, tmp_path: Path
) -> None:
    environments.lock_path.write_text("version = 'second'\n")
    with started(root, environments.command(root, tmp_path / "end")) as first:
        wait_for((environments.store_dir / "begun").exists, "the first build")
        with started(root, environments.command(root, tmp_path / "never")) as second:
            assert second.stderr is not None
            assert f"/train: in use by process {first.pid} on " in second.stderr.readline()
            (tmp_path / "end").touch()
            said = second.communicate(timeout=LIMIT_S)[1]
            assert second.returncode == 0 and "built meanwhile by another process, left alone" in said
        assert first.wait(LIMIT_S) == 0
    assert len(environments.place.directories) == 2


def test_where_it_cannot_be_written_it_is_used_or_refused_in_one_line(
    root: Path, environments: Environments, tmp_path: Path
) -> None:
    command = [*read_only(environments.store_dir), *environments.command(root, tmp_path / "never")]
    used = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert used.returncode == 0, used.stderr
    environments.lock_path.write_text("version = 'second'\n")
    refused = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: {environments.store_dir}: cannot be written, and its train is not of ")


def test_another_checkout_that_shares_it_keeps_what_its_lock_says(environments: Environments, tmp_path: Path) -> None:
    (tmp_path / "scripts/environments").mkdir(parents=True)  # beside envs/train.lock, as in a checkout
    other_lock = tmp_path / "other.lock"
    other_lock.write_text("version = 'of another checkout'\n")
    other = Environments(environments.store_dir, other_lock)
    with pytest.raises(UserError, match=f"train: built from {environments.lock_path}, which {other_lock} differs from"):
        other.build()
    assert environments.shown_by("import late; print(late.version)") == "first"
    environments.lock_path.write_text("version = 'no longer wanted there'\n")
    other.build()
    assert other.shown_by("import late; print(late.version)") == "of another checkout"


def directory_of_an_earlier_version(environments: Environments) -> Path:
    """The environment itself under its name, as versions before 0.2 made it."""
    link = environments.place.link
    directory = link.resolve()
    link.unlink()
    directory.rename(link)
    return link


def test_an_environment_of_an_earlier_version_is_left_alone_too(environments: Environments) -> None:
    link = directory_of_an_earlier_version(environments)
    build_beside(environments.place, pytest.fail)
    assert not link.is_symlink()


def test_an_environment_of_an_earlier_version_is_moved_when_nothing_reads_it(
    root: Path, environments: Environments
) -> None:
    link = directory_of_an_earlier_version(environments)
    code = f"import mmap; file = open({str(link / 'pyvenv.cfg')!r}); kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)"
    with started(root, [sys.executable, "-c", f"{code}; print(flush=True); input()"]) as job:
        assert job.stdout is not None
        job.stdout.readline()
        assert [user.split()[1] for user in users_of(link)] == [str(job.pid)]
        environments.lock_path.write_text("version = 'second'\n")
        with started(root, environments.command(root, environments.lock_path)) as build:
            assert build.stderr is not None
            wait_for_line(build.stderr.readline, f"waiting for process {job.pid} ")
            assert not link.is_symlink()
            job.communicate("\n", timeout=LIMIT_S)
            assert build.wait(LIMIT_S) == 0
    assert link.is_symlink()
    assert (environments.store_dir / "train-old/bin/python").exists()


def wait_for_line(read: Callable[[], str], text: str) -> None:
    while text not in (line := read()):
        assert line, f"ended before it said {text}"
