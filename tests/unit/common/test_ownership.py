"""A program owns its outputs while it makes them, and ends with the run that wanted them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from helpers.processes import LIMIT_S, is_running, wait_for
from scripts.common import ownership
from scripts.common.errors import UserError
from scripts.common.ownership import RUN_VARIABLE, owned
from scripts.common.processes import this_process

# Owns a file, says so, and writes it when the file `go` appears beside it.
PROGRAM = """
import subprocess, sys, time
from pathlib import Path
from scripts.common.errors import run_program
from scripts.common.ownership import owned

def main():
    output, text = Path(sys.argv[1]), sys.argv[2]
    with owned(output):
        print("owned", flush=True)
        while not output.with_name("go").exists():
            time.sleep(0.02)
        output.write_text(text)

run_program(main)
"""
# Owns a file and starts a child that inherits the lock.
WITH_CHILD = """
import subprocess, sys, time
from pathlib import Path
from scripts.common.ownership import owned

with owned(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "3600"], close_fds=False)
    print(child.pid, flush=True)
    time.sleep(3600)
"""
COUNTER = """
import sys
from pathlib import Path
from scripts.common.ownership import owned

output = Path(sys.argv[1])
for _ in range(40):
    with owned(output):
        output.write_text(str(int(output.read_text()) + 1))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Starts a program; what still runs at the end of a test is killed."""
    started: list[subprocess.Popen[str]] = []

    def start_one(code: str, *words: str | Path, run: dict[str, object] | None = None) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
        if run:
            environment[RUN_VARIABLE] = json.dumps(run)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)], cwd=root, env=environment, text=True, **pipes
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def error_line_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline().strip()


@pytest.fixture
def run() -> Iterator[tuple[subprocess.Popen[bytes], dict[str, object]]]:
    """Stands in for a Snakemake: a process, and its identity."""
    with subprocess.Popen(["sleep", "3600"]) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        yield process, this_process() | {"pid": process.pid, "start_time": stat[19]}
        process.kill()


def test_a_second_program_waits_says_for_whom_and_writes_after_the_first(start: Start, tmp_path: Path) -> None:
    output = tmp_path / "output"
    first = start(PROGRAM, output, "first")
    assert line_of(first) == "owned"
    second = start(PROGRAM, output, "second")
    assert f"{output}: in use by process {first.pid} on " in error_line_of(second)
    (tmp_path / "go").touch()
    assert first.wait(LIMIT_S) == second.wait(LIMIT_S) == 0
    assert output.read_text() == "second"


@pytest.mark.parametrize("name", ["", ".", "/", "/dev/full"])
def test_what_cannot_be_an_output_is_refused_and_stays_as_it_was(name: str) -> None:
    with pytest.raises(UserError, match=r"expected (the path of|a place for) a file"), owned(Path(name)):
        raise AssertionError("owned")
    assert Path("/dev/full").is_char_device()


def test_an_input_is_never_an_output(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("mine")
    (tmp_path / "link.jsonl").symlink_to("rows.jsonl")
    with (
        pytest.raises(UserError, match=r"link\.jsonl: found as an input and as an output"),
        owned(tmp_path / "link.jsonl", inputs=[tmp_path / "absent", tmp_path / "rows.jsonl"]),
    ):
        raise AssertionError("owned")


def test_a_place_in_a_directory_that_is_read_and_one_for_two_outputs_are_no_outputs(tmp_path: Path) -> None:
    donor_dir = tmp_path / "donor"
    donor_dir.mkdir()
    (tmp_path / "link").symlink_to(donor_dir)
    for path in (donor_dir / "new.json", donor_dir / "deep/er.json", tmp_path / "link/new.json"):
        with pytest.raises(UserError, match="found as an input and as an output"), owned(path, inputs=[donor_dir]):
            pass
    (tmp_path / "real").mkdir()
    (tmp_path / "other").symlink_to("real")
    for other in ("a", "real/../a", "a/b.json"):  # a program would wait for itself
        with (
            pytest.raises(UserError, match="found as two outputs, or within one"),
            owned(tmp_path / "a", tmp_path / other),
        ):
            pass
    with pytest.raises(UserError, match="found as two"), owned(tmp_path / "real/x", tmp_path / "other/x"):
        pass
    with owned(tmp_path / "donor.json", inputs=[donor_dir, tmp_path / "absent"]):
        pass
    assert not list(donor_dir.iterdir())


def test_nothing_is_left_beside_the_output(tmp_path: Path) -> None:
    for name in (".output.7.tmp", ".other.7.tmp"):
        (tmp_path / name).touch()
    with owned(tmp_path / "output", tmp_path / "made/output"):
        (tmp_path / "output").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"output", ".other.7.tmp"}


def test_outputs_are_taken_in_one_order_so_that_two_programs_never_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    @contextmanager
    def take(output: Path, should_stop: Callable[[], bool]) -> Iterator[None]:
        taken.append(output.name)
        yield

    monkeypatch.setattr(ownership, "locked", take)
    names = [f"output{number}" for number in range(8)]
    with owned(*(tmp_path / name for name in reversed(names))):
        assert taken == names


def test_children_of_a_killed_program_keep_its_outputs(start: Start, tmp_path: Path) -> None:
    output = tmp_path / "output"
    killed = start(WITH_CHILD, output)
    child = psutil.Process(int(line_of(killed)))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    second = start(PROGRAM, output, "second")
    assert f"in use by what is left of a killed program (process {child.pid}" in error_line_of(second)
    child.kill()
    assert line_of(second) == "owned"


def test_a_killed_program_keeps_nothing(start: Start, tmp_path: Path) -> None:
    first = start(PROGRAM, tmp_path / "output", "first")
    assert line_of(first) == "owned"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert line_of(start(PROGRAM, tmp_path / "output", "second")) == "owned"


def test_a_program_ends_with_the_run_that_started_it(
    start: Start, run: tuple[subprocess.Popen[bytes], dict[str, object]], tmp_path: Path
) -> None:
    snakemake, identity = run
    program = start(PROGRAM, tmp_path / "output", "late", run=identity)
    assert line_of(program) == "owned"
    snakemake.kill()  # and nobody has waited for it: a zombie is gone, too
    _, errors = program.communicate(timeout=LIMIT_S)
    assert program.returncode == 1
    assert f"the Snakemake that started this (process {snakemake.pid} on " in errors
    assert "error: ended by SIGTERM" in errors
    assert not (tmp_path / "output").exists()


def test_a_program_that_waits_ends_with_its_run(
    start: Start, run: tuple[subprocess.Popen[bytes], dict[str, object]], tmp_path: Path
) -> None:
    snakemake, identity = run
    first = start(PROGRAM, tmp_path / "output", "first")
    assert line_of(first) == "owned"
    second = start(PROGRAM, tmp_path / "output", "late", run=identity)
    assert "waiting for it to end" in error_line_of(second)
    snakemake.kill()
    assert second.wait(LIMIT_S) == 1
    (tmp_path / "go").touch()
    assert first.wait(LIMIT_S) == 0
    assert (tmp_path / "output").read_text() == "first"


def test_a_program_whose_run_is_gone_begins_nothing(
    start: Start, run: tuple[subprocess.Popen[bytes], dict[str, object]], tmp_path: Path
) -> None:
    snakemake, identity = run
    snakemake.kill()
    snakemake.wait()
    program = start(PROGRAM, tmp_path / "output", "late", run=identity)
    output, errors = program.communicate(timeout=LIMIT_S)
    assert (program.returncode, output) == (1, "")
    assert errors.startswith("error: the Snakemake that started this")
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_another_machine_or_in_another_container_is_taken_for_alive(start: Start, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    for elsewhere in ({"host": "elsewhere"}, {"pid_namespace": "pid:[1]"}):
        program = start(PROGRAM, tmp_path / "output", "made", run=this_process() | {"start_time": "0"} | elsewhere)
        assert program.wait(LIMIT_S) == 0


def test_no_two_programs_own_an_output_at_a_time(start: Start, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    programs = [start(COUNTER, counter) for _ in range(4)]
    assert [program.wait(LIMIT_S) for program in programs] == [0, 0, 0, 0]
    assert counter.read_text() == "160"


def test_a_lock_is_not_waited_for_that_its_owner_removed(start: Start, tmp_path: Path) -> None:
    first = start(PROGRAM, tmp_path / "output", "first")
    assert line_of(first) == "owned"
    second = start(PROGRAM, tmp_path / "output", "second")
    wait_for(lambda: is_running(second.pid))
    (tmp_path / "go").touch()
    assert second.wait(LIMIT_S) == 0
    assert not (tmp_path / ".output.lock").exists()


def test_a_link_in_the_place_of_the_lock_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".made.lock").symlink_to("mine")
    with pytest.raises(UserError, match="made: cannot write there"), owned(tmp_path / "made"):
        raise AssertionError("owned")
    assert (tmp_path / "mine").read_text() == "mine"


def test_only_what_a_killed_program_left_is_removed_beside_an_output(tmp_path: Path) -> None:
    for name in (".made.123.tmp", ".made.notes.tmp", ".notes.tmp"):
        (tmp_path / name).write_text("")
    with owned(tmp_path / "made"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.notes.tmp", ".notes.tmp"]


def test_a_place_where_nothing_can_be_made_is_refused_and_not_tried_for_ever() -> None:
    with pytest.raises(UserError, match="made: cannot write there"), owned(Path("/proc/made")):
        raise AssertionError("owned")


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_something_else_in_the_place_of_the_lock_is_named(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / ".a.json.lock"
    os.mkfifo(lock) if kind == "pipe" else lock.mkdir()
    with (
        pytest.raises(UserError, match=r"cannot write there \(.*\), see \.a\.json\.lock"),
        owned(tmp_path / "a.json"),
    ):
        pass
